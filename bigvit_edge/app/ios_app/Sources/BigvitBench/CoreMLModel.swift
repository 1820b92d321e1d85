#if canImport(CoreML) && canImport(UIKit)
import CoreML
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

/// A package, loaded: an image in, its logits out.
final class CoreMLModel {
    private let model: MLModel
    private let bundled: BundledModel
    private let input: MLMultiArray

    /// compiled: where MLModel.compileModel left it.
    init(_ bundled: BundledModel, compiled: URL, units: Units) throws {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units.units
        if bundled.several, #available(iOS 18, *) { configuration.functionName = bundled.subject.method }
        model = try MLModel(contentsOf: compiled, configuration: configuration)
        self.bundled = bundled
        let side = NSNumber(value: bundled.size)
        input = try MLMultiArray(shape: [1, 3, side, side], dataType: .float32)
    }

    func fill(_ image: [Float]) {
        input.withUnsafeMutableBytes { bytes, _ in
            bytes.copyBytes(from: image.withUnsafeBytes { Array($0) })
        }
    }

    func run() throws -> [Float] {
        let features = try MLDictionaryFeatureProvider(dictionary: [bundled.input: MLFeatureValue(multiArray: input)])
        guard let logits = try model.prediction(from: features).featureValue(for: bundled.output)?.multiArrayValue else {
            throw CocoaError(.featureUnsupported)
        }
        return (0..<logits.count).map { logits[$0].floatValue }
    }
}
#endif
