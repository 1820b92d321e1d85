import Foundation
import XCTest

@testable import BigvitEdge

/// The model is the file that $BVE_MODEL names; $BVE_ANSWERS: a JSON file, [{"keep", "width", "height", "rgb", "image",
/// "logits", "label", "nv12", "turned"}, ...]: a picture's bytes, it as the model takes it, and what the model says of it;
/// a frame of that size, and what it says of that after a turn by 90 degrees.
final class ModelTests: XCTestCase {
    private struct Answer: Decodable {
        let keep: Float
        let width, height: Int
        let rgb: [UInt8]
        let image, logits: [Float]
        let label: String
        let nv12: [UInt8]
        let turned: [Float]
    }

    private func openModel() throws -> Model {
        guard let path = ProcessInfo.processInfo.environment["BVE_MODEL"] else { throw XCTSkip("no $BVE_MODEL") }
        return try Model(contentsOf: URL(fileURLWithPath: path))
    }

    private func readAnswers() throws -> [Answer] {
        guard let path = ProcessInfo.processInfo.environment["BVE_ANSWERS"] else { throw XCTSkip("no $BVE_ANSWERS") }
        let answers = try JSONDecoder().decode([Answer].self, from: Data(contentsOf: URL(fileURLWithPath: path)))
        XCTAssertFalse(answers.isEmpty)
        return answers
    }

    private func meet(_ work: () throws -> Void) -> BigvitEdgeError? {
        do { try work() } catch { return error as? BigvitEdgeError }
        return nil
    }

    func testAnswersAsWritten() throws {
        let model = try openModel()
        for answer in try readAnswers() {
            for threads in [1, Session.cores] {
                let logits = try Session(model, keep: answer.keep, threads: threads).run(answer.image)
                XCTAssertEqual(logits.count, answer.logits.count)
                for (met, expected) in zip(logits, answer.logits) { XCTAssertEqual(met, expected, accuracy: 1e-4) }
            }
        }
    }

    func testPreparesAndClassifies() throws {
        let session = try Session(openModel())
        for answer in try readAnswers() {
            let (width, height) = (answer.width, answer.height)
            let picture = try Picture(pixels: answer.rgb, width: width, height: height, format: .rgb)
            XCTAssertEqual(try session.prepare(picture), answer.image)
            var bgra = [UInt8]()  // with a few bytes behind each row that are nobody's
            for row in 0..<height {
                for i in stride(from: 3 * width * row, to: 3 * width * (row + 1), by: 3) {
                    bgra += [answer.rgb[i + 2], answer.rgb[i + 1], answer.rgb[i], 255]
                }
                bgra += [1, 2, 3, 4]
            }
            let frame = try Picture(pixels: bgra, width: width, height: height, strideBytes: 4 * width + 4, format: .bgra)
            XCTAssertEqual(try session.prepare(frame), answer.image)
            let preprocessing = try XCTUnwrap(session.model.metadata["preprocessing"])
            XCTAssertEqual(try picture.prepare(by: preprocessing, count: answer.image.count), answer.image)
            XCTAssertNotNil(meet { _ = try picture.prepare(by: "{}", count: answer.image.count) })
            let guesses = try session.classify(picture, top: 3)
            XCTAssertEqual(guesses.count, 3)
            XCTAssertEqual(guesses[0].label, answer.label)
            XCTAssertGreaterThanOrEqual(guesses[0].probability, guesses[1].probability)
        }
        XCTAssertNotNil(meet { _ = try Picture(pixels: [0, 0], width: 1, height: 1, format: .rgb) })
        XCTAssertNotNil(meet { _ = try Picture(pixels: [], width: -1, height: 0, format: .rgb) })
        XCTAssertNotNil(meet { _ = try Picture(pixels: [0, 0, 0], width: 1, height: 1, strideBytes: 2, format: .rgb) })
    }

    func testRunsFrames() throws {
        let session = try Session(openModel())
        for answer in try readAnswers() {
            let (width, height) = (answer.width, answer.height)
            let (row, rows) = (2 * ((width + 1) / 2), (height + 1) / 2)
            let (y, uv) = (Array(answer.nv12.prefix(width * height)), Array(answer.nv12.dropFirst(width * height)))
            var spread = [UInt8]()  // with a few bytes behind each row but the last
            for start in stride(from: 0, to: uv.count, by: row) { spread += uv[start..<start + row] + [1, 2, 3] }
            spread.removeLast(3)
            let close = try Frame(
                planes: [y, uv], width: width, height: height, format: .nv12, rotation: 90, matrix: .bt709)
            let apart = try Frame(
                planes: [y, spread], strideBytes: [width, row + 3], width: width, height: height, format: .nv12,
                rotation: 90, matrix: .bt709)
            let (u, v) = (stride(from: 0, to: row * rows, by: 2), stride(from: 1, to: row * rows, by: 2))
            let planar = try Frame(
                planes: [y, u.map { uv[$0] }, v.map { uv[$0] }], width: width, height: height, format: .yuv420,
                rotation: 90, matrix: .bt709)
            for frame in [close, apart, planar] {
                for (met, expected) in zip(try session.run(frame), answer.turned) {
                    XCTAssertEqual(met, expected, accuracy: 1e-4)
                }
            }
            XCTAssertEqual(try session.classify(close, top: 2).count, 2)
            let rgb = try Frame(planes: [answer.rgb], width: width, height: height, format: .rgb)
            XCTAssertEqual(try session.classify(rgb, top: 1)[0].label, answer.label)
        }
        for (planes, strides, side, rotation) in [
            ([[0, 0, 0]], [3], 1, 45), ([[0, 0, 0]], [3], 0, 0), ([[0, 0]], [3], 1, 0), ([[0, 0, 0]], [2], 1, 0),
            ([[0, 0, 0]], [-3], 1, 0), ([], [], 1, 0), ([[0, 0, 0], []], [3, 3], 1, 0), ([[0, 0, 0]], [], 1, 0),
        ] as [([[UInt8]], [Int], Int, Int)] {
            let refusal = meet {
                _ = try Frame(
                    planes: planes, strideBytes: strides, width: side, height: side, format: .rgb, rotation: rotation)
            }
            XCTAssertNotEqual(refusal?.action ?? "", "", "\(planes) \(strides) \(side) \(rotation)")
        }
    }

    func testNamesClassesAndKeepRatios() throws {
        let model = try openModel()
        try model.verify()
        XCTAssertFalse(model.label(0).isEmpty)
        XCTAssertEqual(model.label(model.entries[0].classes), "class \(model.entries[0].classes)")
        XCTAssertEqual(model.keepRatios, model.entries.map(\.keep).filter { $0 > 0 })
    }

    func testNamesWhatItMet() throws {
        let missing = URL(fileURLWithPath: "/no/such/model.bve")
        let error = meet { _ = try Model(contentsOf: missing) }
        XCTAssertTrue(error?.met.contains("/no/such/model.bve") ?? false, "\(String(describing: error))")
        XCTAssertNotEqual(error?.action, "")
        XCTAssertNotNil(meet { _ = try Model(contentsOf: URL(fileURLWithPath: #filePath)) })
        XCTAssertNotNil(meet { _ = try Model(contentsOf: URL(string: "https://localhost/model.bve")!) })
    }

    func testRefusesWhatItCannotKeepTo() throws {
        let model = try openModel()
        let session = try Session(model)
        XCTAssertEqual(meet { _ = try Session(model, keep: 0.123) }?.met, "keep 0.123 for \(model.name)")
        for threads in [-1, 0, Session.cores + 1] { XCTAssertNotNil(meet { _ = try Session(model, threads: threads) }) }
        XCTAssertNotNil(meet { _ = try session.run([0]) })
    }

    func testSessionOutlivesItsModelsName() throws {
        var model: Model? = try openModel()
        let session = try Session(model!)
        model = nil
        XCTAssertEqual(try session.run([Float](repeating: 0, count: session.imageCount)).count, session.entry.classes)
    }

    func testRunsFromSeveralThreads() throws {
        let session = try Session(openModel())
        let image = (0..<session.imageCount).map { Float($0 % 17) / 17 }
        let expected = try session.run(image)
        DispatchQueue.concurrentPerform(iterations: 8) { _ in XCTAssertEqual(try? session.run(image), expected) }
    }
}
