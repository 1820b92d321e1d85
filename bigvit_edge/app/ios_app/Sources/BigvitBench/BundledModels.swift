#if canImport(CoreML) && canImport(UIKit)
import BenchRecords
import Foundation

/// A package of the bundle that this was written from, as its manifest has it.
struct BundledModel: Codable, Identifiable {
    /// Of a channel, red, green, blue: pixel = normalised value * factor + offset.
    struct Level: Codable {
        let factor, offset: Float
    }

    let subject: Subject
    let several: Bool  // whether it has a function for each keep ratio
    let input, output: String
    let size: Int
    let preprocessing: String
    let levels: [Level]?  // of a package that takes pixels
    let labels: [String]

    var id: String { subject.file + " " + subject.method }
    var title: String { subject.file + (subject.keep.map { " keep \($0)" } ?? "") }

    /// Throws where the app was built without its Bundle folder.
    static func list() throws -> (models: [BundledModel], tool: String) {
        struct Listed: Codable {
            let tool: String
            let models: [BundledModel]
        }
        guard let url = Bundle.module.url(forResource: "models", withExtension: "json", subdirectory: "Bundle") else {
            throw CocoaError(.fileNoSuchFile)
        }
        let listed = try JSONDecoder().decode(Listed.self, from: Data(contentsOf: url))
        return (listed.models, listed.tool)
    }

    var package: URL { Bundle.module.bundleURL.appendingPathComponent("Bundle/" + subject.file) }
}
#endif
