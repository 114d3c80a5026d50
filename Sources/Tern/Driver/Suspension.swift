// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// A call that waits on the event loop: resumed once, by what it waits for, by the end of its connection, or by the
/// cancellation of its task, whichever comes first.
///
/// It keeps an unsafe continuation, because its state sees to what a checked one would check at the price of an allocation a
/// call: that it is resumed once.
///
/// `@unchecked Sendable`: the reference is passed between threads, but the state is touched on the event loop alone, after
/// `begin` has been called there.
final class Suspension<Value: Sendable>: @unchecked Sendable {
    typealias Outcome = Result<Value, any Error>

    private enum State {
        case created
        case waiting(UnsafeContinuation<Outcome, Never>)
        /// Resumed before it began: its task was cancelled early.
        case early(Outcome)
        case resumed
    }

    private var state = State.created

    var isWaiting: Bool {
        if case .waiting = state { true } else { false }
    }

    /// - Returns: whether there is still something to wait for.
    func begin(_ continuation: UnsafeContinuation<Outcome, Never>) -> Bool {
        switch state {
        case .created:
            state = .waiting(continuation)
            return true
        case .early(let outcome):
            state = .resumed
            continuation.resume(returning: outcome)
            return false
        case .waiting, .resumed:
            preconditionFailure("a suspension begins once")
        }
    }

    /// Harmless when it was resumed before.
    func resume(_ outcome: Outcome) {
        switch state {
        case .created: state = .early(outcome)
        case .waiting(let continuation):
            state = .resumed
            continuation.resume(returning: outcome)
        case .early, .resumed: break
        }
    }

    func resume(returning value: Value) { resume(.success(value)) }
    func resume(throwing error: any Error) { resume(.failure(error)) }
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
        let suspension = Suspension<Value>()
        return await withTaskCancellationHandler {
            await withUnsafeContinuation { continuation in
                onLoop {
                    if suspension.begin(continuation) { start(suspension) }
                }
            }
        } onCancel: {
            onLoop {
                let wasWaiting = suspension.isWaiting
                suspension.resume(throwing: CancellationError())
                if wasWaiting { onCancel(suspension) }
            }
        }
    }
}
