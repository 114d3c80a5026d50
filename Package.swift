// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

/// Settings of every Swift target: Swift 6 mode comes with the tools version. Lifetimes lets a type that only borrows
/// bytes (`WireReader`) say so; see `docs/decisions/`.
let swiftSettings: [SwiftSetting] = [
    .enableExperimentalFeature("Lifetimes"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let package = Package(
    name: "tern",
    platforms: [.macOS(.v26), .iOS(.v26), .tvOS(.v26), .watchOS(.v26), .visionOS(.v26)],
    products: [
        .library(name: "Tern", targets: ["Tern"]),
        .library(name: "QUICProtocol", targets: ["QUICProtocol"]),
        .library(name: "TernSimulation", targets: ["TernSimulation"]),
        .library(name: "TernTesting", targets: ["TernTesting"]),
        .executable(name: "tern", targets: ["TernCommand"]),
        .executable(name: "tern-simulate", targets: ["TernSimulate"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.0"),
        // CTernCrypto includes the BoringSSL headers that this package vendors, so it is pinned to one minor version.
        .package(url: "https://github.com/apple/swift-nio-ssl.git", .upToNextMinor(from: "2.37.6")),
        .package(url: "https://github.com/apple/swift-collections.git", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log.git", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.0"),
    ],
    targets: [
        .target(
            name: "CTernCrypto",
            dependencies: [.product(name: "NIOSSL", package: "swift-nio-ssl")]
        ),
        .target(name: "CTernSocket"),
        .target(
            name: "QUICProtocol",
            dependencies: [
                "CTernCrypto",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "BasicContainers", package: "swift-collections"),
            ],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "Tern",
            dependencies: [
                "QUICProtocol",
                "CTernSocket",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "TernSimulation",
            dependencies: [
                "QUICProtocol",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "HeapModule", package: "swift-collections"),
            ],
            swiftSettings: swiftSettings
        ),
        .target(name: "CTernTesting"),
        .target(
            name: "TernTesting",
            dependencies: [
                "Tern",
                "TernSimulation",
                "CTernTesting",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "DequeModule", package: "swift-collections"),
            ],
            swiftSettings: swiftSettings
        ),
        .executableTarget(
            name: "TernCommand",
            dependencies: [
                "Tern",
                "QUICProtocol",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: swiftSettings
        ),
        .executableTarget(
            name: "TernSimulate",
            dependencies: [
                "TernSimulation",
                "QUICProtocol",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(name: "QUICProtocolTests", dependencies: ["QUICProtocol"], swiftSettings: swiftSettings),
        .testTarget(
            name: "ScenarioTests", dependencies: ["TernSimulation", "TernSimulate", "QUICProtocol"],
            swiftSettings: swiftSettings),
        // The fuzzers' targets with their corpora; the package in Fuzz makes them into fuzzers.
        .testTarget(
            name: "FuzzTests", dependencies: ["QUICProtocol"], path: "Fuzz/Targets", swiftSettings: swiftSettings),
        .testTarget(
            name: "TernCommandTests",
            dependencies: [
                "TernCommand",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "TernTestingTests",
            dependencies: [
                "Tern",
                "TernTesting",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "TernTests",
            dependencies: [
                "Tern",
                "QUICProtocol",
                "CTernSocket",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
            swiftSettings: swiftSettings
        ),
    ]
)
