#if canImport(CoreML) && canImport(UIKit)
import BenchRecords
import PhotosUI
import SwiftUI

/// The whole app: a model and its compute units, a bench of them, its figures and its file; a photo classified.
public struct BenchView: View {
    @StateObject private var run = BenchRun()
    @State private var models: [BundledModel] = []
    @State private var tool = ""
    @State private var fault = ""
    @State private var chosen = ""
    @State private var units = Units.all
    @State private var photo: PhotosPickerItem?

    public init() {}

    public var body: some View {
        NavigationStack {
            Form {
                Section {
                    Picker("Model", selection: $chosen) { ForEach(models) { Text($0.title).tag($0.id) } }
                    Picker("Compute units", selection: $units) { ForEach(Units.allCases) { Text($0.rawValue).tag($0) } }
                    if run.isRunning {
                        Button("Cancel", role: .cancel) { run.cancel() }
                    } else if let model {
                        Button("Measure") { run.start(model, units: units, tool: tool) }
                        PhotosPicker("Classify a photo", selection: $photo, matching: .images)
                    }
                    if !fault.isEmpty { Text(fault) }
                    if !run.progress.isEmpty { Text(run.progress) }
                }
                if let times = run.times {
                    Section("Latency") {
                        figure("p50", times.p50)
                        figure("p90", times.p90)
                        figure("p99", times.p99)
                        LabeledContent("Frame to label", value: Measured.frame)
                        Text(run.verdict)
                        if let file = run.file { ShareLink("Share the result", item: file) }
                    }
                }
                if !run.guesses.isEmpty {
                    Section("Photo") { ForEach(run.guesses, id: \.self) { Text($0) } }
                }
            }
            .navigationTitle("bigvit-edge bench")
        }
        .task { readModels() }
        .onChange(of: photo) { _, item in classify(item) }
    }

    private var model: BundledModel? { models.first { $0.id == chosen } }

    private func figure(_ name: String, _ ms: Double) -> some View {
        LabeledContent(name, value: String(format: "%.2f ms", ms))
    }

    private func readModels() {
        do {
            (models, tool) = try BundledModel.list()
            chosen = models.first?.id ?? ""
        } catch {
            fault = "The app has no models: \(error.localizedDescription)"
        }
    }

    private func classify(_ item: PhotosPickerItem?) {
        guard let item, let model else { return }
        Task {
            guard let data = try? await item.loadTransferable(type: Data.self), let image = UIImage(data: data) else {
                fault = "That photo cannot be read"
                return
            }
            fault = ""
            run.classify(image, by: model, units: units)
        }
    }
}
#endif
