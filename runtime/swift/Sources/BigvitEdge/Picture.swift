import CBve
import Foundation

/// An upright picture of 8 bits a channel, in sRGB; alpha, if it has any, not multiplied in.
public struct Picture: Sendable {
    /// The bytes of a pixel, in this order.
    public enum Format: Sendable {
        case rgb, rgba, bgra

        var bytes: Int { self == .rgb ? 3 : 4 }
        var code: UInt32 {
            switch self {
            case .rgb: return UInt32(BVE_RGB)
            case .rgba: return UInt32(BVE_RGBA)
            case .bgra: return UInt32(BVE_BGRA)
            }
        }
    }

    public let pixels: [UInt8]
    public let width: Int
    public let height: Int
    public let strideBytes: Int
    public let format: Format

    /// strideBytes: from a row to the next; nil: rows lie close together. Throws BigvitEdgeError where the pixels are
    /// too few for that.
    public init(pixels: [UInt8], width: Int, height: Int, strideBytes: Int? = nil, format: Format) throws {
        let sides = 1...(1 << 24)
        let row = sides.contains(width) ? width * format.bytes : 0
        let stride = strideBytes ?? row
        guard row > 0, sides.contains(height), (row...(1 << 32)).contains(stride),
            pixels.count >= (height - 1) * stride + row
        else {
            throw BigvitEdgeError(
                met: "\(pixels.count) bytes for a picture of \(width) x \(height) with \(stride) bytes a row",
                expected: "\(format.bytes) bytes for each pixel of each row, and sides of at least 1",
                action: "give its size and the bytes from one row to the next")
        }
        self.pixels = pixels
        self.width = width
        self.height = height
        self.strideBytes = stride
        self.format = format
    }
}

extension Picture {
    /// The picture as a model of another format takes it: `preprocessing` is the JSON that its bundle's manifest has under
    /// that name; count: floats of the input, 3 * size * size.
    public func prepare(by preprocessing: String, count: Int) throws -> [Float] {
        let metadata = String(decoding: try JSONEncoder().encode(["preprocessing": preprocessing]), as: UTF8.self)
        var image = [Float](repeating: 0, count: count)
        var error = bve_error()
        let status = withPicture { bve_prepare_by(metadata, &$0, &image, count, &error) }
        guard status == 0 else { throw BigvitEdgeError(error) }
        return image
    }

    func withPicture<Result>(_ work: (inout bve_picture) throws -> Result) rethrows -> Result {
        try pixels.withUnsafeBytes {
            var picture = bve_picture()
            picture.pixels = $0.baseAddress
            picture.stride_bytes = strideBytes
            picture.width = UInt32(width)
            picture.height = UInt32(height)
            picture.format = format.code
            return try work(&picture)
        }
    }
}

/// A class that a model sees in a picture. probability: softmax of the scores.
public struct Guess: Equatable, Sendable {
    public let index: Int
    public let label: String
    public let probability: Float
}

extension Session {
    /// A picture as the model takes it: cropped, resized and normalised as the file says, to the bits that Pillow gives.
    public func prepare(_ picture: Picture) throws -> [Float] {
        try picture.withPicture { try prepare(&$0) }
    }

    /// The most probable classes of a picture, at most `top`, the first being the most probable.
    public func classify(_ picture: Picture, top: Int = 5) throws -> [Guess] {
        guess(try run(prepare(picture)), top: top)
    }

    func prepare(_ picture: inout bve_picture) throws -> [Float] {
        var image = [Float](repeating: 0, count: imageCount)
        var error = bve_error()
        guard bve_prepare(model.program, &picture, &image, image.count, &error) == 0 else {
            throw BigvitEdgeError(error)
        }
        return image
    }

    func guess(_ logits: [Float], top: Int) -> [Guess] {
        let most = logits.max() ?? 0
        let weights = logits.map { exp($0 - most) }
        let sum = weights.reduce(0, +)
        let order = logits.indices.sorted { (logits[$0], $1) > (logits[$1], $0) }
        return order.prefix(max(0, top)).map { Guess(index: $0, label: model.label($0), probability: weights[$0] / sum) }
    }
}
