// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation

/// A client that moves back and forth between its first two interfaces, again and again.
final class Hopper {
    enum Style: Sendable {
        /// Two paths are kept and switched between.
        case keepsPaths
        /// Each move takes a path that is added and probed for it; the one left is closed.
        case closesPaths
    }

    private unowned let testbed: Testbed
    private let style: Style
    private let pauses: ClosedRange<Nanoseconds>
    private var remaining: Int
    private var side = 0
    /// In `keepsPaths`, the path of each interface.
    private var paths: [PathID?] = [nil, nil]
    private var target: PathID?

    /// Starts when paths may be added; the run does not end before the last move.
    @discardableResult
    init(_ testbed: Testbed, _ style: Style, moves: Int, pauses: ClosedRange<Nanoseconds>) {
        self.testbed = testbed
        self.style = style
        self.pauses = pauses
        remaining = moves
        testbed.hold()
        testbed.whenConfirmed {
            self.paths[0] = testbed.activePath
            self.hop()
        }
        testbed.onClientPathEvent { event in
            switch event {
            case .validated(let path, _, _) where path == self.target: self.move(to: path)
            case .failed(let path, let failure) where path == self.target:
                testbed.expect(false, "the probe of \(path) failed: \(failure); \(self.remaining) moves were left")
            default: break
            }
        }
    }

    private func hop() {
        guard remaining > 0 else { return testbed.release() }
        remaining -= 1
        side = 1 - side
        if style == .keepsPaths, let path = paths[side] { return move(to: path) }
        let result = testbed.addPath(over: testbed.client.interfaces[side])
        guard let path = result.value else {
            return testbed.expect(false, "addPath failed with \(remaining) moves left: \(result)")
        }
        target = path
        paths[side] = path
        let probe = testbed.probe(path, timeout: .seconds(10))
        testbed.expect(probe.failure == nil, "probe refused: \(probe)")
    }

    private func move(to path: PathID) {
        target = nil
        let old = testbed.activePath
        let result = testbed.switchPath(to: path)
        testbed.expect(result.failure == nil, "switch refused with \(remaining) moves left: \(result)")
        testbed.expect(testbed.activePath == path, "the active path is not the one switched to")
        if style == .closesPaths, let old {
            let result = testbed.closePath(old)
            testbed.expect(result.failure == nil, "close refused: \(result)")
        }
        testbed.after(testbed.random.time(in: pauses)) { self.hop() }
    }
}
