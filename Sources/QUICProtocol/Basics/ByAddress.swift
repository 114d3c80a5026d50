// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// A structure that holds one is handed on by its address, always.
///
/// The compiler (6.3) hands a structure that it could load into registers to a method that changes nothing, and that it does not
/// inline, as a copy on the stack, however large it is and although it cannot be copied. One of a connection has 2.5 KB, and to
/// make it reads all of the connection's cache lines. What holds an atomic value has an identity in memory, so that no such copy
/// can be made.
struct ByAddress: ~Copyable {
    private let anchor = Atomic<UInt8>(0)
}
