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
    /// Runs a camera's frame where it lies, as run(_: Frame): of 420f or 420v (what a camera gives) or 32BGRA. rotation:
    /// degrees clockwise that turn it upright. Throws BigvitEdgeError on other formats.
    public func run(_ buffer: CVPixelBuffer, rotation: Int = 0) throws -> [Float] {
        guard [0, 90, 180, 270].contains(rotation) else {
            throw BigvitEdgeError(
                met: "a rotation of \(rotation) degrees", expected: "0, 90, 180 or 270", action: "give the camera's")
        }
        CVPixelBufferLockBaseAddress(buffer, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
        var frame = bve_frame()
        frame.width = UInt32(CVPixelBufferGetWidth(buffer))
        frame.height = UInt32(CVPixelBufferGetHeight(buffer))
        frame.rotation = UInt32(rotation)
        let attachment = CVBufferCopyAttachment(buffer, kCVImageBufferYCbCrMatrixKey, nil) as? String
        let isHD = attachment == kCVImageBufferYCbCrMatrix_ITU_R_709_2 as String
        switch CVPixelBufferGetPixelFormatType(buffer) {
        case kCVPixelFormatType_32BGRA:
            frame.format = Frame.Format.bgra.code
            frame.setPlane(0, CVPixelBufferGetBaseAddress(buffer), CVPixelBufferGetBytesPerRow(buffer))
            return try run(&frame)
        case kCVPixelFormatType_420YpCbCr8BiPlanarFullRange:
            frame.matrix = (isHD ? Frame.Matrix.bt709Full : .bt601Full).code
        case kCVPixelFormatType_420YpCbCr8BiPlanarVideoRange:
            frame.matrix = (isHD ? Frame.Matrix.bt709 : .bt601).code
        case let format:
            throw BigvitEdgeError(
                met: "a frame of format \(format)", expected: "420f, 420v or 32BGRA",
                action: "ask the camera for it by its videoSettings")
        }
        frame.format = Frame.Format.nv12.code
        for plane in 0..<2 {
            let stride = CVPixelBufferGetBytesPerRowOfPlane(buffer, plane)
            frame.setPlane(plane, CVPixelBufferGetBaseAddressOfPlane(buffer, plane), stride)
        }
        return try run(&frame)
    }

    /// The most probable classes of a camera's frame, as classify(_: Frame).
    public func classify(_ buffer: CVPixelBuffer, rotation: Int = 0, top: Int = 5) throws -> [Guess] {
        guess(try run(buffer, rotation: rotation), top: top)
    }
}
#endif
