import CBve
import Foundation

/// What this machine tells of itself: cores and limits, as JSON in the fields of bigvit-edge's Machine.
public func probeMachine() -> String { bve_probe(nil).map { String(cString: $0) } ?? "{}" }

/// An entry of a model, ready to run: all memory is allocated, and threads are started.
///
/// Calls from several threads wait for one another, so it may be handed between them.
public final class Session: @unchecked Sendable {
    /// The most threads that can be asked for.
    public static var cores: Int { Int(bve_count_cores()) }

    public let model: Model
    public let entry: Model.Entry

    let session: OpaquePointer
    private let lock = NSLock()

    /// keep: one of the model's keepRatios; nil: its first entry. threads: 1 to Session.cores. choose: try what is
    /// fastest of up to so many threads, and keep that. Throws BigvitEdgeError on what cannot be kept to.
    public init(_ model: Model, keep: Float? = nil, threads: Int = 1, choose: Bool = false) throws {
        guard let entry = model.entries.first(where: { keep == nil || $0.keep == keep }) else {
            let known = model.keepRatios.map { "\($0)" }.joined(separator: ", ")
            throw BigvitEdgeError(
                met: "keep \(keep ?? 0) for \(model.name)",
                expected: known.isEmpty ? "nil: the model has no keep ratio" : "one of \(known), or nil for the first")
        }
        guard let count = UInt32(exactly: threads) else {
            throw BigvitEdgeError(met: "\(threads) threads", expected: "1 to \(Session.cores)")
        }
        var options = bve_options()
        options.abi_version = UInt32(BVE_ABI_VERSION)
        options.threads = count
        options.choose = choose ? 1 : 0
        var error = bve_error()
        guard let session = bve_start(model.program, entry.keep, &options, &error) else { throw BigvitEdgeError(error) }
        self.model = model
        self.entry = entry
        self.session = session
    }

    deinit { bve_stop(session) }

    /// Floats of an input: 3 * imageSize * imageSize, a channel after the other.
    public var imageCount: Int { bve_image_count(session) }

    /// Runs one image as the model takes it; returns a score (logit) for each class.
    public func run(_ image: [Float]) throws -> [Float] {
        var logits = [Float](repeating: 0, count: bve_logits_count(session))
        var error = bve_error()
        lock.lock()
        defer { lock.unlock() }
        guard bve_run(session, image, image.count, &logits, logits.count, &error) == 0 else {
            throw BigvitEdgeError(error)
        }
        return logits
    }

    func run(_ frame: inout bve_frame) throws -> [Float] {
        var logits = [Float](repeating: 0, count: bve_logits_count(session))
        var error = bve_error()
        lock.lock()
        defer { lock.unlock() }
        guard bve_set_frame(session, &frame, &error) == 0,
            bve_run(session, nil, 0, &logits, logits.count, &error) == 0
        else { throw BigvitEdgeError(error) }
        return logits
    }

    /// How it runs, as JSON: CPU features, kernels, threads and memory.
    public func inspect() -> String {
        lock.lock()
        defer { lock.unlock() }
        return bve_inspect(session).map { String(cString: $0) } ?? "{}"
    }
}
