import CBve
import Foundation

/// A camera's frame of 8 bits a channel, as it lies in memory.
public struct Frame: Sendable {
    /// The planes: one; Y and U V in turns, or V U; Y, U and V. Of U and V one pixel stands for 2 x 2.
    public enum Format: Sendable {
        case rgb, rgba, bgra, nv12, nv21, yuv420

        var code: UInt32 {
            switch self {
            case .rgb: return UInt32(BVE_RGB)
            case .rgba: return UInt32(BVE_RGBA)
            case .bgra: return UInt32(BVE_BGRA)
            case .nv12: return UInt32(BVE_NV12)
            case .nv21: return UInt32(BVE_NV21)
            case .yuv420: return UInt32(BVE_YUV420)
            }
        }

        /// Of each plane: bytes of a row, and rows.
        func listSizes(_ width: Int, _ height: Int) -> [(row: Int, rows: Int)] {
            let (halfWidth, halfHeight) = ((width + 1) / 2, (height + 1) / 2)
            switch self {
            case .rgb: return [(3 * width, height)]
            case .rgba, .bgra: return [(4 * width, height)]
            case .nv12, .nv21: return [(width, height), (2 * halfWidth, halfHeight)]
            case .yuv420: return [(width, height), (halfWidth, halfHeight), (halfWidth, halfHeight)]
            }
        }
    }

    /// How YUV stands for colours: BT.601 or BT.709, of the full range, 0 to 255, or of video's.
    public enum Matrix: Sendable {
        case bt601Full, bt601, bt709Full, bt709

        var code: UInt32 {
            switch self {
            case .bt601Full: return UInt32(BVE_BT601_FULL)
            case .bt601: return UInt32(BVE_BT601)
            case .bt709Full: return UInt32(BVE_BT709_FULL)
            case .bt709: return UInt32(BVE_BT709)
            }
        }
    }

    public let planes: [[UInt8]]
    public let strideBytes: [Int]
    public let width: Int
    public let height: Int
    public let format: Format
    public let rotation: Int
    public let matrix: Matrix

    /// strideBytes: from a row to the next, of each plane; nil: rows lie close together. rotation: degrees clockwise that
    /// turn it upright, 0, 90, 180 or 270. Throws BigvitEdgeError where planes are missing or too short for that.
    public init(
        planes: [[UInt8]], strideBytes: [Int]? = nil, width: Int, height: Int, format: Format, rotation: Int = 0,
        matrix: Matrix = .bt601Full
    ) throws {
        let sides = 1...(1 << 24)
        guard sides.contains(width), sides.contains(height) else {
            throw BigvitEdgeError(
                met: "a frame of \(width) x \(height) pixels", expected: "1 to \(1 << 24) each", action: "give its size")
        }
        guard [0, 90, 180, 270].contains(rotation) else {
            throw BigvitEdgeError(
                met: "a rotation of \(rotation) degrees", expected: "0, 90, 180 or 270", action: "give the camera's")
        }
        let sizes = format.listSizes(width, height)
        let strides = strideBytes ?? sizes.map(\.row)
        guard planes.count == sizes.count, strides.count == sizes.count else {
            throw BigvitEdgeError(
                met: "\(planes.count) planes, \(strides.count) strides",
                expected: "\(sizes.count) each, as \(format) has", action: "give its planes as they lie")
        }
        for (plane, (size, stride)) in zip(planes, zip(sizes, strides)) {
            guard (size.row...(1 << 32)).contains(stride), plane.count >= (size.rows - 1) * stride + size.row else {
                throw BigvitEdgeError(
                    met: "\(plane.count) bytes for a plane with \(stride) bytes a row",
                    expected: "at least \(size.row) bytes for each of \(size.rows) rows",
                    action: "give the plane's own stride")
            }
        }
        self.planes = planes
        self.strideBytes = strides
        self.width = width
        self.height = height
        self.format = format
        self.rotation = rotation
        self.matrix = matrix
    }

    func withFrame<Result>(_ work: (inout bve_frame) throws -> Result) rethrows -> Result {
        var frame = bve_frame()
        frame.width = UInt32(width)
        frame.height = UInt32(height)
        frame.format = format.code
        frame.rotation = UInt32(rotation)
        frame.matrix = matrix.code
        frame.pixel_stride = format == .yuv420 ? 1 : 0
        return try hold(0, &frame, work)
    }

    private func hold<Result>(
        _ index: Int, _ frame: inout bve_frame, _ work: (inout bve_frame) throws -> Result
    ) rethrows -> Result {
        guard index < planes.count else { return try work(&frame) }
        return try planes[index].withUnsafeBytes { bytes in
            frame.setPlane(index, bytes.baseAddress, strideBytes[index])
            return try hold(index + 1, &frame, work)
        }
    }
}

extension bve_frame {
    mutating func setPlane(_ index: Int, _ pixels: UnsafeRawPointer?, _ strideBytes: Int) {
        switch index {  // C's arrays are tuples here
        case 0: (planes.0, stride_bytes.0) = (pixels, strideBytes)
        case 1: (planes.1, stride_bytes.1) = (pixels, strideBytes)
        default: (planes.2, stride_bytes.2) = (pixels, strideBytes)
        }
    }
}

extension Session {
    /// Runs a frame, turned upright, cropped, resized and normalised as the file says: the fast way, to a level of 255 as
    /// prepare does it. Returns a score (logit) for each class.
    public func run(_ frame: Frame) throws -> [Float] { try frame.withFrame { try run(&$0) } }

    /// The most probable classes of a frame, at most `top`, the first being the most probable.
    public func classify(_ frame: Frame, top: Int = 5) throws -> [Guess] { guess(try run(frame), top: top) }
}
