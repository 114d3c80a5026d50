// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

let package = Package(
    name: "tern-benchmarks",
    platforms: [.macOS(.v26)],
    dependencies: [.package(name: "tern", path: "..")],
    targets: [
        .target(name: "CAllocationCounter"),
        .target(name: "CProcessFigures"),
        .target(name: "BenchmarkSupport", dependencies: [.product(name: "QUICProtocol", package: "tern")]),
        .executableTarget(
            name: "EngineBenchmark",
            dependencies: ["BenchmarkSupport", "CAllocationCounter", .product(name: "QUICProtocol", package: "tern")]
        ),
        .executableTarget(
            name: "CongestionTable",
            dependencies: [
                .product(name: "QUICProtocol", package: "tern"), .product(name: "TernSimulation", package: "tern"),
            ]
        ),
        // Looks into the engine's rooms: built with `-Xswiftc -enable-testing`.
        .executableTarget(
            name: "MicroBenchmarks",
            dependencies: ["BenchmarkSupport", "CAllocationCounter", .product(name: "QUICProtocol", package: "tern")]
        ),
        .executableTarget(
            name: "SpoofedSources",
            dependencies: [
                "BenchmarkSupport", "CProcessFigures", .product(name: "QUICProtocol", package: "tern"),
            ]
        ),
    ]
)
