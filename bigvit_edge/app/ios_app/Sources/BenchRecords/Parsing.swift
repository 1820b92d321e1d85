import Foundation

extension JSON {
    /// Reads JSON as Foundation does, telling whole numbers from others by how they are written; nil of what is none.
    public init?(parsing text: String) {
        var scanner = Scanner(units: Array(text.utf8))
        guard let value = scanner.readValue(), scanner.isAtEnd() else { return nil }
        self = value
    }
}

private struct Scanner {
    let units: [UInt8]
    var place = 0
    var depth = 0

    mutating func isAtEnd() -> Bool { peek() == nil }

    private mutating func peek() -> UInt8? {
        while place < units.count, [0x20, 0x0a, 0x0d, 0x09].contains(units[place]) { place += 1 }
        return place < units.count ? units[place] : nil
    }

    private mutating func take(_ character: Character) -> Bool {
        guard peek() == character.asciiValue else { return false }
        place += 1
        return true
    }

    mutating func readValue() -> JSON? {
        guard let first = peek(), depth < 100 else { return nil }
        depth += 1
        defer { depth -= 1 }
        switch Character(UnicodeScalar(first)) {
        case "{": return readObject()
        case "[": return readList()
        case "\"": return readText().map { .text($0) }
        default: return readWord()
        }
    }

    private mutating func readObject() -> JSON? {
        var fields: [JSON.Field] = []
        guard take("{") else { return nil }
        if take("}") { return .object(fields) }
        repeat {
            guard let name = readText(), take(":"), let value = readValue() else { return nil }
            fields.append(JSON.Field(name, value))
        } while take(",")
        return take("}") ? .object(fields) : nil
    }

    private mutating func readList() -> JSON? {
        var items: [JSON] = []
        guard take("[") else { return nil }
        if take("]") { return .list(items) }
        repeat {
            guard let value = readValue() else { return nil }
            items.append(value)
        } while take(",")
        return take("]") ? .list(items) : nil
    }

    /// Escapes are Foundation's business.
    private mutating func readText() -> String? {
        guard peek() == 0x22 else { return nil }
        let start = place
        place += 1
        while place < units.count, units[place] != 0x22 { place += units[place] == 0x5c ? 2 : 1 }
        guard place < units.count else { return nil }
        place += 1
        return try? JSONDecoder().decode([String].self, from: Data([0x5b] + units[start..<place] + [0x5d]))[0]
    }

    private mutating func readWord() -> JSON? {
        let start = place
        while place < units.count, !Array(",]} \n\r\t".utf8).contains(units[place]) { place += 1 }
        let word = String(decoding: units[start..<place], as: UTF8.self)
        switch word {
        case "null": return .null
        case "true": return .flag(true)
        case "false": return .flag(false)
        default:
            if let whole = Int(word) { return .whole(whole) }
            guard let real = Double(word), real.isFinite else { return nil }
            return .real(real)
        }
    }
}
