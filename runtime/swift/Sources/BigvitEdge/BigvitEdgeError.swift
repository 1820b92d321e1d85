import CBve
import Foundation

/// What failed: what was met, what was expected instead, and what to do ("" where that says it all).
public struct BigvitEdgeError: LocalizedError, Equatable, Sendable, CustomStringConvertible {
    public let met: String
    public let expected: String
    public let action: String

    public init(met: String, expected: String, action: String = "") {
        self.met = met
        self.expected = expected
        self.action = action
    }

    /// The core says 'met, expected this; do that'.
    init(_ error: bve_error) {
        let text = withUnsafeBytes(of: error.text) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let (found, action) = BigvitEdgeError.split(text, at: "; ")
        let (met, expected) = BigvitEdgeError.split(found, at: ", expected ")
        self.init(met: met, expected: expected.isEmpty ? "what the core can take" : expected, action: action)
    }

    public var description: String { "\(met); expected \(expected)" + (action.isEmpty ? "" : "; \(action)") }
    public var errorDescription: String? { description }

    private static func split(_ text: String, at separator: String) -> (String, String) {
        guard let place = text.range(of: separator) else { return (text, "") }
        return (String(text[..<place.lowerBound]), String(text[place.upperBound...]))
    }
}
