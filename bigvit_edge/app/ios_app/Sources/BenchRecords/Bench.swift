import Foundation

/// Runs one model's turns. What a turn is and when a model is warm is as in `bigvit-edge bench`.
public struct Bench {
    public static let turnSeconds = 0.1
    public static let turnImages = 3
    public static let rounds = 30

    private static let blockImages = 10
    private static let blocks = 3
    private static let spread = 1.03  // of the last blocks, the slowest's median to the fastest's
    private static let mostSeconds = 30.0
    private static let mostImages = 1000

    private let readNs: () -> Int
    private let readCpuNs: () -> Int
    private let run: () throws -> Void

    public init(
        readNs: @escaping () -> Int = { Int(DispatchTime.now().uptimeNanoseconds) },
        readCpuNs: @escaping () -> Int = Bench.readProcessNs, run: @escaping () throws -> Void
    ) {
        self.readNs = readNs
        self.readCpuNs = readCpuNs
        self.run = run
    }

    /// Until the last medians agree: how many images that took, and whether they do.
    public func warmUp() throws -> (images: Int, isWarm: Bool) {
        let start = readNs()
        var medians: [Double] = []
        while true {
            medians.append(median(try takeTurn(seconds: 0, images: Bench.blockImages).timesMs.sorted()))
            let last = medians.suffix(Bench.blocks)
            let images = medians.count * Bench.blockImages
            guard last.count == Bench.blocks, let most = last.max(), let least = last.min() else { continue }
            if most <= Bench.spread * least { return (images, true) }
            let isLate = Double(readNs() - start) > Bench.mostSeconds * 1e9 || images >= Bench.mostImages
            if isLate { return (images, false) }
        }
    }

    public func takeTurn(seconds: Double = turnSeconds, images: Int = turnImages) throws -> Turn {
        var times: [Double] = []
        let (start, cpu) = (readNs(), readCpuNs())
        var now = start
        while times.count < images || Double(now - start) < seconds * 1e9 {
            let before = readNs()
            try run()
            now = readNs()
            times.append(Double(now - before) / 1e6)
        }
        let spent = Double(readCpuNs() - cpu) / 1e6 / Double(times.count)
        return Turn(startNs: start, endNs: now, timesMs: times, cpuMs: spent)
    }

    /// CPU time of this process, of all its threads.
    public static func readProcessNs() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Int(time.tv_sec) * 1_000_000_000 + Int(time.tv_nsec)
    }
}
