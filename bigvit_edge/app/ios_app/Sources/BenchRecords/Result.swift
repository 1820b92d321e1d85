import Foundation

/// A model's way to run, as the bundle's manifest has it.
public struct Subject: Codable, Equatable, Sendable {
    public let file, sha256, precision, method: String
    public let bytes: Int
    public let keep, delegatedShare: Double?

    public init(
        file: String, sha256: String, bytes: Int, precision: String, method: String, keep: Double?, delegatedShare: Double?
    ) {
        (self.file, self.sha256, self.bytes, self.precision) = (file, sha256, bytes, precision)
        (self.method, self.keep, self.delegatedShare) = (method, keep, delegatedShare)
    }
}

/// What was measured of one model: a row of a result file. Loads in milliseconds, with the first image after each.
public struct Measured: Sendable {
    public static let frame = "not available: this app times no frames"  // from a camera's frame to its label

    public var subject: Subject
    public var policy: String  // the compute units asked for
    public var version: String  // of the system, which brings Core ML
    public var warmupImages = 0
    public var isWarm = false
    public var turns: [Turn] = []
    public var firstLoad: (loadMs: Double, imageMs: Double)?
    public var cachedLoad: (loadMs: Double, imageMs: Double)?
    public var foreground: Bool?
    public var thermalStatus: (Int?, Int?) = (nil, nil)
    public var error = ""

    public init(subject: Subject, policy: String, version: String) {
        (self.subject, self.policy, self.version) = (subject, policy, version)
    }
}

/// A result file of version 1, which bigvit_edge/results.py reads.
public struct Result: Sendable {
    public var device: String  // "app:iPhone16,1"
    public var machine: JSON
    public var rows: [Measured]
    public var date: String  // UTC, ISO 8601
    public var tool: String
    public var rounds: Int
    public var complete: Bool
    public var notes: [String]

    public init(
        device: String, machine: JSON, rows: [Measured], date: String, tool: String, rounds: Int, complete: Bool,
        notes: [String]
    ) {
        (self.device, self.machine, self.rows, self.date) = (device, machine, rows, date)
        (self.tool, self.rounds, self.complete, self.notes) = (tool, rounds, complete, notes)
    }

    /// The file's text, its own hash in it.
    public func write() -> String {
        let protocolFields: [JSON.Field] = [
            .init("turn_s", .real(Bench.turnSeconds)), .init("turn_images", .whole(Bench.turnImages)),
            .init("rounds", .whole(rounds)), .init("minutes", .real(0)), .init("fps", .real(0)), .init("cool_c", .null),
            .init("pictures", .text("")),
        ]
        let what = rows.map { JSON.list([.text($0.subject.file), .text($0.subject.sha256), .text($0.subject.method), .text($0.policy)]) }
        let key = hashText(JSON.list([.text(tool), .text(device), .object(protocolFields), .list(what)]).spell())
        let fields: [JSON.Field] = [
            .init("device", .text(device)), .init("machine", machine), .init("protocol", .object(protocolFields)),
            .init("rows", .list(rows.map(\.row))), .init("date", .text(date)), .init("tool", .text(tool)),
            .init("command", .list([.text("app"), .text("ios")])), .init("key", .text(String(key.prefix(16)))),
            .init("complete", .flag(complete)), .init("notes", .list(notes.map { .text($0) })),
            .init("throttled_bits", .list([.null, .null])), .init("version", .whole(1)),
        ]
        let sha256 = hashText(JSON.object(fields).spell(sorted: true))
        return JSON.object(fields + [.init("sha256", .text(sha256))]).layOut() + "\n"
    }
}

extension Measured {
    /// In the fields of bigvit_edge/results.py's Row.
    var row: JSON {
        let judged = turns.isEmpty ? nil : Judgement(turns, warm: isWarm)
        let failure = error.isEmpty ? "it was not run" : error
        let times = turns.isEmpty ? nil : Times(turns.flatMap(\.timesMs))
        let minutes = takeMinutes(turns)
        let isFailed = judged == nil || !error.isEmpty
        return .object([
            .init("file", .text(subject.file)), .init("sha256", .text(subject.sha256)), .init("bytes", .whole(subject.bytes)),
            .init("format", .text("coreml")), .init("precision", .text(subject.precision)),
            .init("keep", .maybe(subject.keep)), .init("method", .text(subject.method)),
            .init("delegated_share", .maybe(subject.delegatedShare)), .init("policy", .text(policy)),
            .init("threads", .whole(1)), .init("cores_asked", .null), .init("launch", .text("app")),
            .init("runtime", .text("coreml \(version)")), .init("build", .null), .init("cores_allowed", .list([])),
            .init("warmup_images", .whole(warmupImages)), .init("warm", .flag(isWarm)),
            .init("turns", .list(turns.map(\.record))), .init("latency_ms", times?.record ?? .null),
            .init("cpu_ms", .maybe(cpuMs)), .init("first_minute_ms", .maybe(minutes?.0)),
            .init("last_minute_ms", .maybe(minutes?.1)), .init("load", load), .init("memory", .null),
            .init("energy", .text("not available")), .init("answers", .text("not available")),
            .init("frame", .text(Self.frame)),
            .init("verdicts", .list((isFailed ? ["failed"] : judged?.verdicts ?? []).map { .text($0) })),
            .init("reasons", .list((isFailed ? [failure] : judged?.reasons ?? []).map { .text($0) })),
            .init("error", .text(error)), .init("throttled_share", .null), .init("surroundings", surroundings),
        ])
    }

    private var cpuMs: Double? {
        let images = turns.reduce(0) { $0 + $1.timesMs.count }
        guard images > 0, turns.allSatisfy({ $0.cpuMs != nil }) else { return nil }
        return turns.reduce(0) { $0 + ($1.cpuMs ?? 0) * Double($1.timesMs.count) } / Double(images)
    }

    private var load: JSON {
        guard let first = firstLoad, let cached = cachedLoad else { return .null }
        return .object([
            .init("cold_ms", .real(first.loadMs)), .init("cold_first_ms", .real(first.imageMs)), .init("cached_share", .null),
            .init("warm_ms", .real(cached.loadMs)), .init("first_ms", .real(cached.imageMs)),
        ])
    }

    private var surroundings: JSON {
        .object([
            .init("foreground", foreground.map { .flag($0) } ?? .null), .init("cpuset", .text("")),
            .init("thermal_status", .list([.maybe(thermalStatus.0), .maybe(thermalStatus.1)])),
            .init("thermal_headroom", .list([.null, .null])), .init("agent", .text("")), .init("isolated", .null),
        ])
    }
}

extension Turn {
    var record: JSON {
        .object([
            .init("start_ns", .whole(startNs)), .init("end_ns", .whole(endNs)),
            .init("times_ms", .list(timesMs.map { .real($0) })), .init("cpu_ms", .maybe(cpuMs)),
            .init("clock_mhz", .list([.null, .null])), .init("cores", .object([])), .init("thread_ms", .object([])),
            .init("throttled_periods", .null), .init("temp_c", .null), .init("part", .whole(0)),
        ])
    }
}

extension Times {
    var record: JSON {
        .object([
            .init("p50", .real(p50)), .init("p90", .real(p90)), .init("p99", .real(p99)), .init("min", .real(min)),
            .init("mean", .real(mean)), .init("max", .real(max)), .init("images", .whole(images)),
        ])
    }
}
