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

    init(_ error: bve_error) {
        var error = error, parts = bve_parts()
        bve_error_parts(&error, &parts)
        let expected = BigvitEdgeError.read(parts.expected)
        self.init(
            met: BigvitEdgeError.read(parts.met), expected: expected.isEmpty ? "what the core can take" : expected,
            action: BigvitEdgeError.read(parts.to_do))
    }

    public var description: String { "\(met); expected \(expected)" + (action.isEmpty ? "" : "; \(action)") }
    public var errorDescription: String? { description }

    private static func read<Part>(_ part: Part) -> String {
        withUnsafeBytes(of: part) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
