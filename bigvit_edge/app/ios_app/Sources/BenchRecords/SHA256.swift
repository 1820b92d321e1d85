import Foundation

/// SHA-256 of a text in UTF-8, in hexadecimal (FIPS 180-4).
public func hashText(_ text: String) -> String {
    var bytes = Array(text.utf8)
    let bits = UInt64(bytes.count) * 8
    bytes.append(0x80)
    while bytes.count % 64 != 56 { bytes.append(0) }
    for shift in stride(from: UInt64(56), through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: bits >> shift)) }
    var state = start
    for block in stride(from: 0, to: bytes.count, by: 64) { hash(bytes[block..<block + 64], into: &state) }
    return state.map { word in
        let digits = String(word, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }.joined()
}

private let primes: [Int] = (2..<312).filter { number in !(2..<number).contains { number % $0 == 0 } }
private let start: [UInt32] = primes.prefix(8).map { takeBits(Double($0).squareRoot()) }
private let rounds: [UInt32] = primes.map { takeBits(cbrt(Double($0))) }

/// Of a number's fraction, the first 32.
private func takeBits(_ number: Double) -> UInt32 { UInt32((number - number.rounded(.down)) * 4_294_967_296) }

private func turn(_ word: UInt32, _ by: UInt32) -> UInt32 { word >> by | word << (32 - by) }

private func hash(_ block: ArraySlice<UInt8>, into state: inout [UInt32]) {
    var words = [UInt32](repeating: 0, count: 64)
    for (i, byte) in block.enumerated() { words[i / 4] = words[i / 4] << 8 | UInt32(byte) }
    for i in 16..<64 {
        let (x, y) = (words[i - 15], words[i - 2])
        let low = turn(x, 7) ^ turn(x, 18) ^ (x >> 3)
        let high = turn(y, 17) ^ turn(y, 19) ^ (y >> 10)
        words[i] = words[i - 16] &+ low &+ words[i - 7] &+ high
    }
    var s = state
    for i in 0..<64 {
        let choice = (s[4] & s[5]) ^ (~s[4] & s[6])
        let majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2])
        let one = s[7] &+ (turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25)) &+ choice &+ rounds[i] &+ words[i]
        let two = (turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22)) &+ majority
        s = [one &+ two, s[0], s[1], s[2], s[3] &+ one, s[4], s[5], s[6]]
    }
    for i in 0..<8 { state[i] = state[i] &+ s[i] }
}
