// SPDX-License-Identifier: Apache-2.0

import Testing

/// `#expect` for conditions on values that cannot be copied, which the macro would want to capture.
func verify(
    _ condition: Bool, _ comment: Comment? = nil, sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(condition, comment, sourceLocation: sourceLocation)
}
