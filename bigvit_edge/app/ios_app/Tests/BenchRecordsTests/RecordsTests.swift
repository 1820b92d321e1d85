import Foundation
import XCTest

@testable import BenchRecords

/// $BENCH_CASES: a JSON file, {"texts": [[JSON, as Python spells it, its hash], ...], "rows": [{"turns": [[ms, ...], ...],
/// "warm", "times": [p50, p90, p99, min, mean, max], "verdicts", "reasons"}, ...]}; $BENCH_MACHINE: of a machine;
/// $BENCH_RESULT: the file to write.
final class RecordsTests: XCTestCase {
    private struct Cases: Decodable {
        struct Row: Decodable {
            let turns: [[Double]]
            let warm: Bool
            let times: [Double]
            let verdicts, reasons: [String]
        }
        let texts: [[String]]
        let rows: [Row]
    }

    private func find(_ name: String) throws -> URL {
        guard let path = ProcessInfo.processInfo.environment[name] else { throw XCTSkip("no $\(name)") }
        return URL(fileURLWithPath: path)
    }

    private func readCases() throws -> Cases {
        try JSONDecoder().decode(Cases.self, from: Data(contentsOf: find("BENCH_CASES")))
    }

    private func makeTurns(_ times: [[Double]]) -> [Turn] {
        times.enumerated().map { i, times in
            Turn(startNs: i * 100_000_000, endNs: (i + 1) * 100_000_000, timesMs: times, cpuMs: 1.5)
        }
    }

    func testSpellsAndHashesAsPython() throws {
        for text in try readCases().texts {
            let spelled = try XCTUnwrap(JSON(parsing: text[0]), text[0]).spell(sorted: true)
            XCTAssertEqual(spelled, text[1])
            XCTAssertEqual(hashText(spelled), text[2])
        }
        for broken in ["", "{", "[1,]", "nul", "{\"a\" 1}", "[1] 2", "1e999", String(repeating: "[", count: 5000)] {
            XCTAssertNil(JSON(parsing: broken))
        }
    }

    func testJudgesAsPython() throws {
        for row in try readCases().rows {
            let turns = makeTurns(row.turns)
            let times = Times(row.turns.flatMap { $0 })
            XCTAssertEqual([times.p50, times.p90, times.p99, times.min, times.mean, times.max], row.times)
            let judged = Judgement(turns, warm: row.warm)
            XCTAssertEqual(judged.verdicts, row.verdicts)
            XCTAssertEqual(judged.reasons, row.reasons)
        }
    }

    func testWarmsUpUntilTimesAgree() throws {
        var now = 0
        var images = 0
        let settling = Bench(readNs: { now }, readCpuNs: { 0 }) {
            images += 1
            now += images < 50 ? 2_000_000 * (60 - images) : 1_000_000
        }
        let warm = try settling.warmUp()
        XCTAssertTrue(warm.isWarm)
        XCTAssertEqual(warm.images, images)
        XCTAssertGreaterThanOrEqual(images, 70)
        let turn = try settling.takeTurn()
        XCTAssertEqual(turn.timesMs, [Double](repeating: 1, count: 100))
        let never = Bench(readNs: { now }, readCpuNs: { 0 }) {
            images += 1
            now += images / 10 % 2 == 0 ? 20_000_000 : 90_000_000
        }
        XCTAssertFalse(try never.warmUp().isWarm)
    }

    func testWritesAResultThatPythonReads() throws {
        let url = try find("BENCH_RESULT")
        let machine = try XCTUnwrap(JSON(parsing: String(contentsOf: find("BENCH_MACHINE"), encoding: .utf8)))
        let subject = Subject(
            file: "modèle\n😀.mlpackage", sha256: String(repeating: "0", count: 64), bytes: 12, precision: "fp16",
            method: "main", keep: 0.5, delegatedShare: 1)
        var measured = Measured(subject: subject, policy: "all units", version: "18.1")
        measured.turns = makeTurns([[Double]](repeating: [1.1, 1.2, 1e-5], count: 12))
        (measured.warmupImages, measured.isWarm) = (30, true)
        (measured.firstLoad, measured.cachedLoad) = ((812.5, 9), (40, 1.5))
        (measured.foreground, measured.thermalStatus) = (true, (0, 3))
        var failed = Measured(subject: subject, policy: "cpu", version: "18.1")
        failed.error = "no memory"
        let result = Result(
            device: "app:iPhone16,1", machine: machine, rows: [measured, failed], date: "2026-11-30T06:00:00Z",
            tool: "0.1", rounds: 12, complete: true, notes: ["a note"])
        try result.write().write(to: url, atomically: true, encoding: .utf8)
    }
}
