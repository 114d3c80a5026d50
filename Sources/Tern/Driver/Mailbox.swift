// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Synchronization

/// A queue from the event loop to the tasks that wait for its elements, each of which goes to one task.
///
/// Whoever fills it bounds it: streams by the number the peer may open, connections by the listener's backlog (`count`).
final class Mailbox<Element: Sendable>: Sendable {
    private struct State {
        var elements = Deque<Element>()
        var waiters = Deque<(number: UInt64, continuation: UnsafeContinuation<Element?, Never>)>()
        var nextNumber: UInt64 = 0
        var isFinished = false
    }

    private let state = Mutex(State())

    /// Elements that no task has taken yet.
    var count: Int { state.withLock { $0.elements.count } }
    /// No more elements come; those that are there can still be taken.
    var isFinished: Bool { state.withLock { $0.isFinished } }

    /// - Returns: false if the mailbox is finished: the element was not taken.
    @discardableResult
    func put(_ element: Element) -> Bool {
        let (accepted, waiter) = state.withLock { state -> (Bool, UnsafeContinuation<Element?, Never>?) in
            guard !state.isFinished else { return (false, nil) }
            if let waiter = state.waiters.popFirst() { return (true, waiter.continuation) }
            state.elements.append(element)
            return (true, nil)
        }
        waiter?.resume(returning: element)
        return accepted
    }

    /// Ends the sequence after the elements that are there.
    func finish() {
        let waiters = state.withLock { state in
            state.isFinished = true
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.continuation.resume(returning: nil) }
    }

    /// Takes out what nobody will ask for any more.
    func drain() -> [Element] {
        state.withLock { state in
            defer { state.elements = [] }
            return Array(state.elements)
        }
    }

    /// The next element; nil at the end, and when the task is cancelled.
    nonisolated(nonsending)
        func next() async -> Element?
    {
        let (number, element) = state.withLock { state -> (UInt64, Element?) in
            state.nextNumber += 1
            return (state.nextNumber, state.elements.popFirst())
        }
        if let element { return element }
        return await withTaskCancellationHandler {
            await withUnsafeContinuation { (continuation: UnsafeContinuation<Element?, Never>) in
                let (isReady, element) = state.withLock { state -> (Bool, Element?) in
                    if let element = state.elements.popFirst() { return (true, element) }
                    // The handler may have run before this: it found nothing to resume then.
                    if state.isFinished || Task.isCancelled { return (true, nil) }
                    state.waiters.append((number, continuation))
                    return (false, nil)
                }
                if isReady { continuation.resume(returning: element) }
            }
        } onCancel: {
            let waiter = state.withLock { state -> UnsafeContinuation<Element?, Never>? in
                guard let index = state.waiters.firstIndex(where: { $0.number == number }) else { return nil }
                return state.waiters.remove(at: index).continuation
            }
            waiter?.resume(returning: nil)
        }
    }
}
