/// A JSON value that keeps whole numbers apart from others, and an object's order, as Python does.
public enum JSON: Equatable, Sendable {
    case null
    case flag(Bool)
    case whole(Int)
    case real(Double)
    case text(String)
    case list([JSON])
    case object([Field])

    public struct Field: Equatable, Sendable {
        public let name: String
        public let value: JSON
        public init(_ name: String, _ value: JSON) {
            self.name = name
            self.value = value
        }
    }

    /// null for nil.
    public static func maybe(_ number: Double?) -> JSON { number.map { .real($0) } ?? .null }
    public static func maybe(_ number: Int?) -> JSON { number.map { .whole($0) } ?? .null }

    /// On one line as Python's json.dumps spells it; sorted: by the names' code points, as what is hashed.
    public func spell(sorted: Bool = false) -> String {
        switch self {
        case .null: return "null"
        case .flag(let flag): return flag ? "true" : "false"
        case .whole(let number): return String(number)
        case .real(let number): return spellReal(number)
        case .text(let text): return spellText(text)
        case .list(let items): return "[" + items.map { $0.spell(sorted: sorted) }.joined(separator: ", ") + "]"
        case .object(let fields):
            let ordered = sorted ? fields.sorted { isBefore($0.name, $1.name) } : fields
            let spelled = ordered.map { "\(spellText($0.name)): \($0.value.spell(sorted: sorted))" }
            return "{" + spelled.joined(separator: ", ") + "}"
        }
    }

    /// Indented by one, lists of plain values on one line: they are most of a result.
    public func layOut(_ indent: Int = 0) -> String {
        let inner = String(repeating: " ", count: indent + 1)
        let outer = String(repeating: " ", count: indent)
        switch self {
        case .object(let fields) where !fields.isEmpty:
            let lines = fields.map { inner + spellText($0.name) + ": " + $0.value.layOut(indent + 1) }
            return "{\n" + lines.joined(separator: ",\n") + "\n" + outer + "}"
        case .list(let items) where items.contains(where: \.isNested):
            return "[\n" + items.map { inner + $0.layOut(indent + 1) }.joined(separator: ",\n") + "\n" + outer + "]"
        default: return spell()
        }
    }

    private var isNested: Bool {
        switch self {
        case .list, .object: return true
        default: return false
        }
    }
}

private func isBefore(_ one: String, _ other: String) -> Bool {
    one.unicodeScalars.lexicographicallyPrecedes(other.unicodeScalars)
}

/// As Python's repr: the fewest digits that read back, an exponent below 1e-4 and from 1e16 on.
private func spellReal(_ number: Double) -> String {
    precondition(number.isFinite, "a result holds finite numbers alone")
    let parts = "\(number.magnitude)".split(separator: "e")
    let mantissa = parts[0].split(separator: ".")
    let whole = String(mantissa[0])
    let fraction = mantissa.count > 1 && mantissa[1] != "0" ? String(mantissa[1]) : ""
    let all = whole + fraction
    let leading = all.prefix { $0 == "0" }.count
    var digits = String(all.dropFirst(leading))
    let exponent = (parts.count > 1 ? Int(parts[1]) ?? 0 : 0) + whole.count - leading - 1  // of the first digit
    while digits.hasSuffix("0") { digits.removeLast() }
    let sign = number.sign == .minus ? "-" : ""
    guard !digits.isEmpty else { return sign + "0.0" }
    if exponent < -4 || exponent >= 16 {
        let rest = digits.count > 1 ? ".\(digits.dropFirst())" : ""
        let power = (exponent < 0 ? "e-" : "e+") + (exponent.magnitude < 10 ? "0" : "")
        return "\(sign)\(digits.prefix(1))\(rest)\(power)\(exponent.magnitude)"
    }
    if exponent < 0 { return sign + "0." + String(repeating: "0", count: -exponent - 1) + digits }
    let padded = digits + String(repeating: "0", count: max(0, exponent + 1 - digits.count))
    let after = padded.dropFirst(exponent + 1)
    return "\(sign)\(padded.prefix(exponent + 1)).\(after.isEmpty ? "0" : after)"
}

private func spellText(_ text: String) -> String {
    var spelled = "\""
    for unit in text.utf16 {
        switch unit {
        case 0x22: spelled += "\\\""
        case 0x5c: spelled += "\\\\"
        case 0x08: spelled += "\\b"
        case 0x0c: spelled += "\\f"
        case 0x0a: spelled += "\\n"
        case 0x0d: spelled += "\\r"
        case 0x09: spelled += "\\t"
        case 0x20...0x7e: spelled += String(UnicodeScalar(UInt8(unit)))
        default:
            let digits = String(unit, radix: 16)
            spelled += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        }
    }
    return spelled + "\""
}
