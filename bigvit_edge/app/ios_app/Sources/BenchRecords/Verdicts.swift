import Foundation

/// Some images of one model, one after the other. Times in milliseconds, start and end of a monotonic clock.
public struct Turn: Sendable {
    public let startNs, endNs: Int
    public let timesMs: [Double]
    public let cpuMs: Double?

    public init(startNs: Int, endNs: Int, timesMs: [Double], cpuMs: Double?) {
        self.startNs = startNs
        self.endNs = endNs
        self.timesMs = timesMs
        self.cpuMs = cpuMs
    }
}

/// The distribution of times by rank, as MLPerf takes it.
public struct Times: Equatable, Sendable {
    public let p50, p90, p99, min, mean, max: Double
    public let images: Int

    public init(_ timesMs: [Double]) {
        let ordered = timesMs.sorted()
        let count = ordered.count
        func rank(_ hundredths: Int) -> Double { ordered[(hundredths * count + 99) / 100 - 1] }
        (p50, p90, p99) = (median(ordered), rank(90), rank(99))
        (min, max, images) = (ordered[0], ordered[count - 1], count)
        mean = sumExactly(ordered) / Double(count)
    }
}

/// What speaks against a row where no clock is known: bigvit_edge/bench/verdicts.py, word for word.
public struct Judgement: Equatable, Sendable {
    public let verdicts, reasons: [String]

    /// warm: whether its times had settled when warming up ended. turns: none of them empty.
    public init(_ turns: [Turn], warm: Bool) {
        let found = Judgement.findThrottling(turns) ?? Judgement.findNoise(turns, warm)
        verdicts = [found?.0 ?? "valid"]
        reasons = found.map { [$0.1] } ?? []
    }

    private static let leastTurns = 8  // below which neither drift nor spread is told from chance
    private static let slowedAlone = 1.15  // the last quarter's time of the first's
    private static let drifted = 1.1
    private static let tail = 1.25  // p90 of p50
    private static let spread = 0.1  // of the middle half of the turns' medians, of p50

    private static func findThrottling(_ turns: [Turn]) -> (String, String)? {
        guard turns.count >= leastTurns else { return nil }
        let slower = findDrift(turns)
        guard slower > slowedAlone else { return nil }
        return ("throttled", "\(fix(slower)) times the time at the end; the clock is not known")
    }

    private static func findNoise(_ turns: [Turn], _ warm: Bool) -> (String, String)? {
        guard warm else { return ("noisy", "its times had not settled when warming up ended") }
        let times = Times(turns.flatMap(\.timesMs))
        if times.p90 > tail * times.p50 { return ("noisy", "p90 is \(fix(times.p90 / times.p50)) times p50") }
        let medians = turns.map { median($0.timesMs.sorted()) }.sorted()
        if medians.count < leastTurns { return ("noisy", "\(medians.count) turns are too few to tell") }
        let between = quartile(medians, 3) - quartile(medians, 1)
        if between > spread * times.p50 {
            let share = String(format: "%.0f%%", between / times.p50 * 100)
            return ("noisy", "the middle half of its turns differs by \(share)")
        }
        let drift = findDrift(turns)
        if drift >= 1 / drifted, drift <= drifted { return nil }
        return ("noisy", "\(fix(drift)) times the time at the end, at the same clock")
    }

    private static func findDrift(_ turns: [Turn]) -> Double {
        let quarter = turns.count / 4
        func take(_ some: ArraySlice<Turn>) -> Double { median(some.flatMap(\.timesMs).sorted()) }
        return take(turns.suffix(quarter)) / take(turns.prefix(quarter))
    }

    private static func fix(_ number: Double) -> String { String(format: "%.2f", number) }
}

/// The medians of the first and of the last minute, of what took two or more.
public func takeMinutes(_ turns: [Turn]) -> (Double, Double)? {
    let minute = 60_000_000_000
    guard let start = turns.first?.startNs, let end = turns.last?.endNs, end - start >= 2 * minute else { return nil }
    let first = turns.filter { $0.endNs - start <= minute }.flatMap(\.timesMs)
    let last = turns.filter { end - $0.startNs <= minute }.flatMap(\.timesMs)
    return first.isEmpty || last.isEmpty ? nil : (median(first.sorted()), median(last.sorted()))
}

/// Of times in rising order.
func median(_ ordered: [Double]) -> Double {
    let middle = ordered.count / 2
    return ordered.count % 2 == 1 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2
}

/// statistics.quantiles(values, n=4) of Python, of values in rising order.
private func quartile(_ ordered: [Double], _ which: Int) -> Double {
    let place = which * (ordered.count + 1)
    let at = Swift.min(Swift.max(place / 4, 1), ordered.count - 1)
    let share = Double(place - at * 4)
    return (ordered[at - 1] * (4 - share) + ordered[at] * share) / 4
}

/// The correctly rounded sum of positive numbers, but for halves (Shewchuk 1997).
private func sumExactly(_ values: [Double]) -> Double {
    var partials: [Double] = []
    for value in values {
        var x = value
        var kept: [Double] = []
        for partial in partials {
            let (large, small) = abs(x) < abs(partial) ? (partial, x) : (x, partial)
            let high = large + small
            let low = small - (high - large)
            if low != 0 { kept.append(low) }
            x = high
        }
        partials = kept + [x]
    }
    return partials.reversed().reduce(0, +)
}
