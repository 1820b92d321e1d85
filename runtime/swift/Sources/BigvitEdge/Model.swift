import CBve
import Foundation

/// A .bve file, mapped and validated; its weights are read as they are used.
///
/// Any number of sessions may share it, on any threads: nothing of it changes once it is open. It is closed when the
/// last of its sessions and of its owners is gone.
public final class Model: @unchecked Sendable {
    /// One of the ways to run the model: with that share of the tokens in the big path (0: it has no such choice).
    public struct Entry: Codable, Equatable, Sendable {
        public let name: String
        public let keep: Float
        public let imageSize: Int
        public let classes: Int
        public let macs: Int

        enum CodingKeys: String, CodingKey {
            case name, keep, classes, macs
            case imageSize = "image_size"
        }
    }

    public let name: String
    /// fp32, fp16 or int8.
    public let precision: String
    /// The file's first is what runs if none is asked for.
    public let entries: [Entry]
    /// What the file says of itself, as it was exported: labels and preprocessing among it, as JSON texts.
    public let metadata: [String: String]

    let program: OpaquePointer

    /// Throws BigvitEdgeError on whatever is no .bve file of this version, or is damaged.
    public init(contentsOf url: URL) throws {
        guard url.isFileURL else {
            throw BigvitEdgeError(met: "\(url)", expected: "a file's URL", action: "download the file first")
        }
        var error = bve_error()
        guard let program = bve_open(url.path, &error) else { throw BigvitEdgeError(error) }
        do {
            let told = Data(String(cString: bve_describe(program)).utf8)
            let described = try JSONDecoder().decode(Description.self, from: told)
            name = described.name
            precision = described.precision
            entries = described.entries
            metadata = described.metadata
        } catch {
            bve_close(program)
            throw BigvitEdgeError(
                met: "\(url.lastPathComponent) describes itself by \(error)", expected: "the core's own words",
                action: "export it again")
        }
        self.program = program
    }

    deinit { bve_close(program) }

    /// The keep ratios that can be asked for; empty where the model has none.
    public var keepRatios: [Float] { entries.map(\.keep).filter { $0 > 0 } }

    /// The name of a class; 'class 3' where the file names none.
    public func label(_ index: Int) -> String {
        guard index >= 0, let text = bve_label(program, index) else { return "class \(index)" }
        return String(cString: text)
    }

    /// Compares all weights with their checksums, which opening does not: it reads the whole file.
    public func verify() throws {
        var error = bve_error()
        guard bve_verify(program, &error) == 0 else { throw BigvitEdgeError(error) }
    }

    private struct Description: Decodable {
        let name, precision: String
        let entries: [Entry]
        let metadata: [String: String]
    }
}
