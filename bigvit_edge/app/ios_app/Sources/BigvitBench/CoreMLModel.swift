#if canImport(CoreML) && canImport(UIKit)
import CoreML
import CoreVideo
import Foundation

/// The compute units that may be asked for, as a row's policy names them.
enum Units: String, CaseIterable, Identifiable {
    case all = "all units"
    case neuralEngine = "cpu and neural engine"
    case gpu = "cpu and gpu"
    case cpu = "cpu"

    var id: String { rawValue }
    var units: MLComputeUnits {
        switch self {
        case .all: return .all
        case .neuralEngine: return .cpuAndNeuralEngine
        case .gpu: return .cpuAndGPU
        case .cpu: return .cpuOnly
        }
    }
}

/// A package, loaded: an image in, the scores of its classes out.
final class CoreMLModel {
    private enum Input {
        case tensor(MLMultiArray)
        case pixels(CVPixelBuffer)
    }

    private let model: MLModel
    private let bundled: BundledModel
    private let input: Input

    /// compiled: where MLModel.compileModel left it.
    init(_ bundled: BundledModel, compiled: URL, units: Units) throws {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units.units
        if bundled.several, #available(iOS 18, *) { configuration.functionName = bundled.subject.method }
        model = try MLModel(contentsOf: compiled, configuration: configuration)
        self.bundled = bundled
        if bundled.levels == nil {
            let side = NSNumber(value: bundled.size)
            input = .tensor(try MLMultiArray(shape: [1, 3, side, side], dataType: .float32))
        } else {
            input = .pixels(try makePixels(side: bundled.size))
        }
    }

    /// image: [3, size, size], normalised; of a package that takes pixels, it becomes those again.
    func fill(_ image: [Float]) {
        switch input {
        case .tensor(let array):
            array.withUnsafeMutableBytes { bytes, _ in
                bytes.copyBytes(from: image.withUnsafeBytes { Array($0) })
            }
        case .pixels(let buffer):
            write(image, to: buffer)
        }
    }

    /// What the package answers: logits, or a classifier's probabilities by label.
    func run() throws -> MLFeatureValue {
        let value: MLFeatureValue
        switch input {
        case .tensor(let array): value = MLFeatureValue(multiArray: array)
        case .pixels(let buffer): value = MLFeatureValue(pixelBuffer: buffer)
        }
        let features = try MLDictionaryFeatureProvider(dictionary: [bundled.input: value])
        guard let answer = try model.prediction(from: features).featureValue(for: bundled.output) else {
            throw CocoaError(.featureUnsupported)
        }
        return answer
    }

    /// The labels of an answer, the likeliest first.
    func rank(_ answer: MLFeatureValue) throws -> [String] {
        if let logits = answer.multiArrayValue {
            let scores = (0..<logits.count).map { logits[$0].floatValue }
            let order = scores.indices.sorted { scores[$0] > scores[$1] }
            return order.map { bundled.labels.indices.contains($0) ? bundled.labels[$0] : "class \($0)" }
        }
        guard let byLabel = answer.dictionaryValue as? [String: NSNumber] else { throw CocoaError(.featureUnsupported) }
        return byLabel.sorted { $0.value.doubleValue > $1.value.doubleValue }.map { $0.key }
    }

    private func write(_ image: [Float], to buffer: CVPixelBuffer) {
        CVPixelBufferLockBaseAddress(buffer, [])
        defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
        guard let levels = bundled.levels, let base = CVPixelBufferGetBaseAddress(buffer) else { return }
        let (side, stride) = (bundled.size, CVPixelBufferGetBytesPerRow(buffer))
        for y in 0..<side {
            let row = base.advanced(by: y * stride).assumingMemoryBound(to: UInt8.self)
            for x in 0..<side {
                for channel in 0..<3 {
                    let value = image[(channel * side + y) * side + x] * levels[channel].factor + levels[channel].offset
                    row[4 * x + 2 - channel] = UInt8(min(255, max(0, value.rounded())))
                }
                row[4 * x + 3] = 255
            }
        }
    }
}

/// A picture of 32BGRA, which Core ML takes for every colour image.
private func makePixels(side: Int) throws -> CVPixelBuffer {
    var made: CVPixelBuffer?
    let attributes = [kCVPixelBufferIOSurfacePropertiesKey: [:] as CFDictionary] as CFDictionary
    let status = CVPixelBufferCreate(kCFAllocatorDefault, side, side, kCVPixelFormatType_32BGRA, attributes, &made)
    guard status == kCVReturnSuccess, let buffer = made else { throw CocoaError(.featureUnsupported) }
    return buffer
}
#endif
