#if canImport(CoreML) && canImport(UIKit)
import BenchRecords
import BigvitEdge
import CoreGraphics
import CoreML
import SwiftUI
import UIKit

/// A bench of one model: what is shown of it, and the file it leaves. One at a time.
@MainActor
final class BenchRun: ObservableObject {
    @Published private(set) var progress = ""
    @Published private(set) var isRunning = false
    @Published private(set) var times: Times?
    @Published private(set) var verdict = ""
    @Published private(set) var file: URL?
    @Published private(set) var guesses: [String] = []
    private var task: Task<Void, Never>?

    func cancel() { task?.cancel() }

    func start(_ bundled: BundledModel, units: Units, tool: String) {
        guard !isRunning else { return }
        (isRunning, times, verdict, file) = (true, nil, "", nil)
        task = Task.detached(priority: .userInitiated) { [weak self] in
            let job = BenchJob(bundled: bundled, units: units)
            let measured = await job.measure { text in await self?.show(text) }
            await self?.finish(measured, notes: job.notes, tool: tool)
        }
    }

    /// The most probable classes of a picture, which is drawn upright first.
    func classify(_ image: UIImage, by bundled: BundledModel, units: Units) {
        guard !isRunning else { return }
        isRunning = true
        task = Task.detached(priority: .userInitiated) { [weak self] in
            let told: [String]
            do {
                told = try BenchJob(bundled: bundled, units: units).classify(image)
            } catch {
                told = [error.localizedDescription]
            }
            await self?.show(told)
        }
    }

    private func show(_ text: String) { progress = text }

    private func show(_ told: [String]) { (guesses, isRunning) = (told, false) }

    private func finish(_ measured: Measured, notes: [String], tool: String) {
        isRunning = false
        if !measured.turns.isEmpty {
            let judged = Judgement(measured.turns, warm: measured.isWarm)
            times = Times(measured.turns.flatMap(\.timesMs))
            verdict = (judged.verdicts + judged.reasons).joined(separator: ": ")
        }
        progress = measured.error
        var system = utsname()
        uname(&system)
        let model = withUnsafeBytes(of: system.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let result = BenchRecords.Result(
            device: "app:\(model)", machine: JSON(parsing: probeMachine()) ?? .object([]), rows: [measured],
            date: ISO8601DateFormatter().string(from: Date()), tool: tool, rounds: Bench.rounds,
            complete: measured.turns.count == Bench.rounds, notes: notes)
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("bigvit-\(UUID().uuidString.prefix(8)).json")
        do {
            try result.write().write(to: url, atomically: true, encoding: .utf8)
            file = url
        } catch {
            progress = "the result was not kept: \(error.localizedDescription)"
        }
    }
}

/// What is done off the main thread.
final class BenchJob {
    let bundled: BundledModel
    let units: Units
    private(set) var notes: [String] = []

    init(bundled: BundledModel, units: Units) {
        (self.bundled, self.units) = (bundled, units)
    }

    /// Keeps what was measured so far when it is cancelled or fails.
    func measure(_ show: (String) async -> Void) async -> Measured {
        let version = await UIDevice.current.systemVersion
        var measured = Measured(subject: bundled.subject, policy: units.rawValue, version: version)
        measured.thermalStatus.0 = readThermalStatus()
        var inFront = await isInFront()
        noteMemory("before the load")
        do {
            await show("compiling and loading")
            let (model, first) = try load { try MLModel.compileModel(at: bundled.package) }
            let (_, cached) = try load { self.compiled ?? bundled.package }
            (measured.firstLoad, measured.cachedLoad) = (first, cached)
            let bench = Bench { _ = try model.run() }
            await show("warming up")
            (measured.warmupImages, measured.isWarm) = try bench.warmUp()
            for round in 1...Bench.rounds {
                try Task.checkCancellation()
                await show("turn \(round) of \(Bench.rounds)")
                measured.turns.append(try bench.takeTurn())
                if await !isInFront() { inFront = false }
            }
        } catch is CancellationError {
            notes.append("cancelled after \(measured.turns.count) turns")
        } catch {
            measured.error = error.localizedDescription
        }
        noteMemory("after the run")
        measured.thermalStatus.1 = readThermalStatus()
        measured.foreground = inFront
        return measured
    }

    func classify(_ image: UIImage) throws -> [String] {
        let format = UIGraphicsImageRendererFormat()
        (format.scale, format.opaque) = (1, true)
        let upright = UIGraphicsImageRenderer(size: image.size, format: format).image { _ in image.draw(at: .zero) }
        guard let pixels = upright.cgImage else { throw CocoaError(.fileReadCorruptFile) }
        let count = 3 * bundled.size * bundled.size
        let model = try CoreMLModel(bundled, compiled: MLModel.compileModel(at: bundled.package), units: units)
        model.fill(try Picture(pixels).prepare(by: bundled.preprocessing, count: count))
        return Array(try model.rank(model.run()).prefix(3))
    }

    private var compiled: URL?

    private func load(_ find: () throws -> URL) throws -> (CoreMLModel, (loadMs: Double, imageMs: Double)) {
        let start = DispatchTime.now().uptimeNanoseconds
        let url = try find()
        compiled = url
        let model = try CoreMLModel(bundled, compiled: url, units: units)
        let loaded = DispatchTime.now().uptimeNanoseconds
        model.fill((0..<3 * bundled.size * bundled.size).map { Float($0 % 255) / 127 - 1 })
        let ready = DispatchTime.now().uptimeNanoseconds
        _ = try model.run()
        let end = DispatchTime.now().uptimeNanoseconds
        return (model, (Double(loaded - start) / 1e6, Double(end - ready) / 1e6))
    }

    private func noteMemory(_ when: String) {
        notes.append("memory that the app may still take, \(when): \(os_proc_available_memory()) bytes")
    }

    private func isInFront() async -> Bool { await MainActor.run { UIApplication.shared.applicationState == .active } }

    /// In Android's words: none, light, severe, critical.
    private func readThermalStatus() -> Int? {
        switch ProcessInfo.processInfo.thermalState {
        case .nominal: return 0
        case .fair: return 1
        case .serious: return 3
        case .critical: return 4
        @unknown default: return nil
        }
    }
}
#endif
