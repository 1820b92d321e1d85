// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "BigvitBench",
    platforms: [.iOS("@IOS@.0"), .macOS(.v12)],
    products: [.`library`(name: "BigvitBench", targets: ["BigvitBench"])],
    dependencies: [.package(path: "BigvitEdge")],
    targets: [
        // What needs no framework of Apple's: the bench, its verdicts and the result file.
        .target(name: "BenchRecords"),
        .target(
            name: "BigvitBench",
            dependencies: ["BenchRecords", .product(name: "BigvitEdge", package: "BigvitEdge")],
            resources: [.copy("Bundle")]
        ),
        .testTarget(name: "BenchRecordsTests", dependencies: ["BenchRecords"]),
    ]
)
