// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// A call that waits on the event loop: resumed once, by what it waits for, by the end of its connection, or by the
/// cancellation of its task, whichever comes first.
///
/// It keeps an unsafe continuation, because its state sees to what a checked one would check at the price of an allocation a
/// call: that it is resumed once. Kinds of calls that are frequent are subclasses with what the call asks for, so that one
/// object is all that a call which waits allocates.
///
/// `@unchecked Sendable`: the reference is passed between threads, but the state is touched on the event loop alone, after
/// `begin` has been called there.
class Suspension<Value: Sendable>: @unchecked Sendable {
    typealias Outcome = Result<Value, any Error>

    private enum State {
        case created
        case waiting(UnsafeContinuation<Outcome, Never>)
        /// Resumed before it began: its task was cancelled early.
        case early(Outcome)
        case resumed
    }

    private var state = State.created
    /// How often it was made ready again: a cancellation that comes late is not for the call that it serves by then.
    private(set) final var turn: UInt64 = 0

    /// Makes a suspension that was resumed ready for another call. On the loop.
    final func renew() {
        state = .created
        turn += 1
    }

    /// On the loop: there is something to wait for from now on. It may be resumed at once.
    func began() {}
    /// On the loop: the task was cancelled while it waited, and is resumed. Nobody may refer to the suspension any longer.
    func withdrawn() {}

    final func begin(_ continuation: UnsafeContinuation<Outcome, Never>) {
        switch state {
        case .created:
            state = .waiting(continuation)
            began()
        case .early(let outcome):
            state = .resumed
            continuation.resume(returning: outcome)
        case .waiting, .resumed:
            preconditionFailure("a suspension begins once")
        }
    }

    /// Harmless when it was resumed before.
    final func resume(_ outcome: Outcome) {
        switch state {
        case .created: state = .early(outcome)
        case .waiting(let continuation):
            state = .resumed
            continuation.resume(returning: outcome)
        case .early, .resumed: break
        }
    }

    final func resume(returning value: Value) { resume(.success(value)) }
    final func resume(throwing error: any Error) { resume(.failure(error)) }

    final func cancel(turn: UInt64) {
        guard turn == self.turn else { return }
        let wasWaiting = if case .waiting = state { true } else { false }
        resume(throwing: CancellationError())
        if wasWaiting { withdrawn() }
    }
}

/// A suspension of a call that is rare.
private final class PlainSuspension<Value: Sendable>: Suspension<Value>, @unchecked Sendable {
    private let start: @Sendable (Suspension<Value>) -> Void
    private let onCancel: @Sendable (Suspension<Value>) -> Void

    init(
        start: @escaping @Sendable (Suspension<Value>) -> Void,
        onCancel: @escaping @Sendable (Suspension<Value>) -> Void
    ) {
        self.start = start
        self.onCancel = onCancel
    }

    override func began() { start(self) }
    override func withdrawn() { onCancel(self) }
}

extension Worker {
    /// Runs `body` on the loop: now if this is its thread.
    func onLoop(_ body: @escaping @Sendable () -> Void) {
        if eventLoop.inEventLoop { body() } else { eventLoop.execute(body) }
    }

    /// Runs `body` on the loop and returns what it returns: one hop there and one back, or none if the task runs there.
    nonisolated(nonsending)
        func run<R: Sendable>(_ body: @escaping @Sendable () -> R) async -> R
    {
        if eventLoop.inEventLoop { return body() }
        return await withUnsafeContinuation { continuation in
            eventLoop.execute { continuation.resume(returning: body()) }
        }
    }

    /// Suspends the task until the suspension that `start` is given (on the loop) is resumed. When the task is cancelled,
    /// `onCancel` runs on the loop and the call throws `CancellationError`.
    nonisolated(nonsending)
        func suspend<Value: Sendable>(
            for _: Value.Type = Value.self,
            onCancel: @escaping @Sendable (Suspension<Value>) -> Void = { _ in },
            start: @escaping @Sendable (Suspension<Value>) -> Void
        ) async -> Result<Value, any Error>
    {
        await wait(in: PlainSuspension(start: start, onCancel: onCancel))
    }

    /// Suspends the task until the suspension, which begins on the loop, is resumed or the task cancelled.
    nonisolated(nonsending)
        func wait<Value: Sendable>(in suspension: Suspension<Value>) async -> Result<Value, any Error>
    {
        let turn = suspension.turn
        return await withTaskCancellationHandler {
            await withUnsafeContinuation { continuation in
                // A closure that leaves this call is made only for another thread's sake.
                if eventLoop.inEventLoop {
                    suspension.begin(continuation)
                } else {
                    eventLoop.execute { suspension.begin(continuation) }
                }
            }
        } onCancel: {
            if eventLoop.inEventLoop {
                suspension.cancel(turn: turn)
            } else {
                eventLoop.execute { suspension.cancel(turn: turn) }
            }
        }
    }
}
