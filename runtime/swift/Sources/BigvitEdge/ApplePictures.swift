#if canImport(CoreGraphics)
import CoreGraphics

extension Picture {
    /// The pixels of an image, in sRGB. Its orientation is not known to it: turn a photograph upright first.
    public init(_ image: CGImage) throws {
        let (width, height) = (image.width, image.height)
        var pixels = [UInt8](repeating: 0, count: 4 * width * height)
        let isOpaque = [.none, .noneSkipFirst, .noneSkipLast].contains(image.alphaInfo)
        let alpha: CGImageAlphaInfo = isOpaque ? .noneSkipLast : .premultipliedLast
        let isDrawn = pixels.withUnsafeMutableBytes { bytes in
            guard let space = CGColorSpace(name: CGColorSpace.sRGB),
                let context = CGContext(
                    data: bytes.baseAddress, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width,
                    space: space, bitmapInfo: alpha.rawValue)
            else { return false }
            context.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
            return true
        }
        guard isDrawn else {
            throw BigvitEdgeError(met: "an image of \(width) x \(height) that cannot be drawn", expected: "a picture")
        }
        if isOpaque {
            for i in stride(from: 3, to: pixels.count, by: 4) { pixels[i] = 255 }
        } else {
            divideByAlpha(&pixels)
        }
        try self.init(pixels: pixels, width: width, height: height, format: .rgba)
    }
}

/// Core Graphics draws only with alpha multiplied in.
private func divideByAlpha(_ pixels: inout [UInt8]) {
    for i in stride(from: 0, to: pixels.count, by: 4) {
        let alpha = Int(pixels[i + 3])
        guard alpha > 0, alpha < 255 else { continue }
        for channel in i..<i + 3 { pixels[channel] = UInt8(min(255, (Int(pixels[channel]) * 255 + alpha / 2) / alpha)) }
    }
}

extension Session {
    /// As classify(_: Picture): of an image that is upright.
    public func classify(_ image: CGImage, top: Int = 5) throws -> [Guess] { try classify(Picture(image), top: top) }
}
#endif

#if canImport(CoreVideo)
import CBve
import CoreVideo

extension Session {
    /// A frame as the model takes it. Upright, and of 32BGRA, which a camera gives if it is asked to:
    /// `videoSettings = [kCVPixelBufferPixelFormatTypeKey: kCVPixelFormatType_32BGRA]`.
    public func prepare(_ frame: CVPixelBuffer) throws -> [Float] {
        guard CVPixelBufferGetPixelFormatType(frame) == kCVPixelFormatType_32BGRA else {
            throw BigvitEdgeError(
                met: "a frame of format \(CVPixelBufferGetPixelFormatType(frame))", expected: "kCVPixelFormatType_32BGRA",
                action: "ask the camera for it by its videoSettings")
        }
        CVPixelBufferLockBaseAddress(frame, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(frame, .readOnly) }
        guard let pixels = CVPixelBufferGetBaseAddress(frame) else {
            throw BigvitEdgeError(met: "a frame without memory", expected: "one that the processor can read")
        }
        var picture = bve_picture()
        picture.pixels = UnsafeRawPointer(pixels)
        picture.stride_bytes = CVPixelBufferGetBytesPerRow(frame)
        picture.width = UInt32(CVPixelBufferGetWidth(frame))
        picture.height = UInt32(CVPixelBufferGetHeight(frame))
        picture.format = Picture.Format.bgra.code
        return try prepare(&picture)
    }

    public func classify(_ frame: CVPixelBuffer, top: Int = 5) throws -> [Guess] {
        guess(try run(prepare(frame)), top: top)
    }
}
#endif
