// SPDX-License-Identifier: Apache-2.0

/// Which sequence numbers were seen, as few ranges: they come almost in order, and a peer that scatters them is refused.
struct SequenceSet {
    /// Ranges held at once; more gaps than that no honest peer leaves.
    static let maximumRanges = 32

    /// Ascending, with a gap between any two.
    private var ranges: [ClosedRange<UInt64>] = []

    func contains(_ sequence: UInt64) -> Bool {
        ranges.contains { $0.contains(sequence) }
    }

    /// - Returns: false if the set would need more than `maximumRanges`; it is unchanged then.
    mutating func insert(_ sequence: UInt64) -> Bool {
        guard !contains(sequence) else { return true }
        let index = ranges.firstIndex { $0.lowerBound > sequence } ?? ranges.count
        let joinsBelow = index > 0 && ranges[index - 1].upperBound + 1 == sequence
        let joinsAbove = index < ranges.count && ranges[index].lowerBound - 1 == sequence
        switch (joinsBelow, joinsAbove) {
        case (true, true):
            ranges[index - 1] = ranges[index - 1].lowerBound...ranges[index].upperBound
            ranges.remove(at: index)
        case (true, false):
            ranges[index - 1] = ranges[index - 1].lowerBound...sequence
        case (false, true):
            ranges[index] = sequence...ranges[index].upperBound
        case (false, false):
            guard ranges.count < Self.maximumRanges else { return false }
            ranges.insert(sequence...sequence, at: index)
        }
        return true
    }
}
