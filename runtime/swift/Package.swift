// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "BigvitEdge",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [.`library`(name: "BigvitEdge", targets: ["BigvitEdge"])],
    targets: [
        // The core from its sources. A kernel's file says itself which instructions it is for: SwiftPM refuses a
        // package that others depend on any compiler's flags of its own.
        .target(
            name: "CBve",
            cxxSettings: [
                .headerSearchPath("runtime"),
                .headerSearchPath("kernels_arm"),
                .define("NDEBUG", .when(configuration: .release)),
            ]
        ),
        .target(name: "BigvitEdge", dependencies: ["CBve"]),
        .testTarget(name: "BigvitEdgeTests", dependencies: ["BigvitEdge"]),
    ],
    cxxLanguageStandard: .cxx17
)
