// SPDX-License-Identifier: Apache-2.0

// The types that calls of this module take and return (addresses, path and close reasons, configurations) are the engine's
// own: whoever imports Tern sees them, too.
@_exported public import QUICProtocol
