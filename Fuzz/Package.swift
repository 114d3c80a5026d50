// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

// Built by `Fuzz/run`, which asks for libFuzzer and for a testable engine with its assertions. The same targets, and
// their corpora, are replayed by `swift test` in the package above.
let package = Package(
    name: "tern-fuzz",
    platforms: [.macOS(.v26)],
    dependencies: [.package(name: "tern", path: "..")],
    targets: [
        .target(name: "CFuzzMemory"),
        .target(
            name: "FuzzTargets", dependencies: [.product(name: "QUICProtocol", package: "tern")],
            path: "Targets/Fuzzers",
            swiftSettings: [
                .enableExperimentalFeature("Lifetimes"),
                .enableUpcomingFeature("ExistentialAny"),
                .enableUpcomingFeature("InternalImportsByDefault"),
            ]
        ),
        .executableTarget(name: "TernFuzz", dependencies: ["CFuzzMemory", "FuzzTargets"]),
    ]
)
