#include "picture.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "canvas.h"
#include "error.h"

namespace bve {
namespace {

constexpr int kFaint = 32;  // levels between the darkest and the brightest of a channel

struct Layout {
  uint32_t format;
  const char* name;
  uint32_t bytes;  // of a pixel
  uint32_t red;    // blue is 2 - red
  bool has_alpha;
};
constexpr Layout kLayouts[] = {
    {BVE_RGB, "RGB", 3, 0, false}, {BVE_RGBA, "RGBA", 4, 0, true}, {BVE_BGRA, "BGRA", 4, 2, true}};

const Layout& find_layout(const bve_picture& picture) {
  for (const Layout& layout : kLayouts) {
    if (layout.format == picture.format) return layout;
  }
  fail("a picture of format %u, expected BVE_RGB, BVE_RGBA or BVE_BGRA (%d, %d, %d); convert it",
       picture.format, BVE_RGB, BVE_RGBA, BVE_BGRA);
}

void check(const bve_picture& picture, const Layout& layout) {
  const uint32_t width = picture.width, height = picture.height;
  if (picture.reserved != 0) {
    fail("a picture with %u in reserved, expected 0; set all of bve_picture", picture.reserved);
  }
  check_size("a picture", width, height);
  if (!picture.pixels) fail("a picture whose pixels are null, expected its first row; give them");
  const uint64_t least = uint64_t{width} * layout.bytes;
  if (height > 1) check_stride(picture.stride_bytes, height);  // of one row numpy makes up any
  if (picture.stride_bytes < least) {
    fail(
        "a stride of %zu bytes for rows of %u pixels of %s, expected %llu or more; give the bytes "
        "from one row to the next",
        picture.stride_bytes, width, layout.name, static_cast<unsigned long long>(least));
  }
}

Side take_whole(Side side) {
  side.first = 0;
  side.count = side.whole;
  return side;
}

// ---- pixels ------------------------------------------------------------------------------------

uint8_t multiply(uint8_t color, uint8_t alpha) {
  const unsigned product = color * alpha + 128u;
  return static_cast<uint8_t>((product + (product >> 8)) >> 8);
}

class Picture {
 public:
  Picture(const bve_picture& picture, const Layout& layout, const Preprocessing& how)
      : picture_(picture),
        layout_(layout),
        ways_(find_ways(picture.width, picture.height, how)),
        filter_(how.resize),
        has_alpha_(layout.has_alpha && is_partly_transparent()) {}

  uint32_t channels() const { return has_alpha_ ? 4 : 3; }
  const Ways& ways() const { return ways_; }

  // The wanted rows, or those of all that is resized: colours, times alpha where there is one.
  template <typename Take>
  void resize(bool all, Take take) const {
    const Side across = ways_.across.side, down = ways_.down.side;
    const Taps columns = compute_taps(filter_, all ? take_whole(across) : across);
    const Taps rows = compute_taps(filter_, all ? take_whole(down) : down);
    const uint32_t first = columns.starts.front();
    const uint32_t count = columns.starts.back() + columns.sizes.back() - first;
    resample(
        columns, rows, goes_down_first(across, down), channels(),
        [&](uint32_t y, uint8_t* row) { read_row(y, first, count, row); }, take);
  }

 private:
  const uint8_t* find_pixel(uint32_t x, uint32_t y) const {
    return static_cast<const uint8_t*>(picture_.pixels) + y * picture_.stride_bytes +
           size_t{x} * layout_.bytes;
  }

  // Of a picture that is transparent everywhere, the colours are taken as if it were not.
  bool is_partly_transparent() const {
    uint8_t low = 255, high = 0;
    for (uint32_t y = 0; y < picture_.height; ++y) {
      const uint8_t* const row = find_pixel(0, y);
      for (uint32_t x = 0; x < picture_.width; ++x) {
        low = std::min(low, row[x * 4 + 3]);
        high = std::max(high, row[x * 4 + 3]);
      }
    }
    return low < 255 && high > 0;
  }

  void read_row(uint32_t y, uint32_t first, uint32_t count, uint8_t* row) const {
    const uint8_t* pixel = find_pixel(ways_.across.origin + first, ways_.down.origin + y);
    const uint32_t red = layout_.red, blue = 2 - red;
    for (uint32_t x = 0; x < count; ++x, pixel += layout_.bytes, row += channels()) {
      row[0] = pixel[red];
      row[1] = pixel[1];
      row[2] = pixel[blue];
      if (!has_alpha_) continue;
      for (int c = 0; c < 3; ++c) row[c] = multiply(row[c], pixel[3]);
      row[3] = pixel[3];
    }
  }

  const bve_picture& picture_;
  const Layout& layout_;
  Ways ways_;
  Filter filter_;
  bool has_alpha_;
};

// What shines through: white as viewers show it, 255; 0, black, where white would hide what there
// is, such as white ink.
int find_ground(const Picture& picture) {
  std::array<int, 3> low_black, low_white, high_black, high_white;
  low_black.fill(INT32_MAX);
  low_white.fill(INT32_MAX);
  high_black.fill(INT32_MIN);
  high_white.fill(INT32_MIN);
  const uint32_t width = picture.ways().across.side.whole;
  picture.resize(true, [&](uint32_t, const uint8_t* row) {
    for (uint32_t x = 0; x < width; ++x, row += 4) {
      for (size_t c = 0; c < 3; ++c) {
        const int black = row[c], white = black + 255 - row[3];
        low_black[c] = std::min(low_black[c], black);
        low_white[c] = std::min(low_white[c], white);
        high_black[c] = std::max(high_black[c], black);
        high_white[c] = std::max(high_white[c], white);
      }
    }
  });
  int most_black = 0, most_white = 0;
  for (size_t c = 0; c < 3; ++c) {
    most_black = std::max(most_black, high_black[c] - low_black[c]);
    most_white = std::max(most_white, high_white[c] - low_white[c]);
  }
  return most_white < kFaint && kFaint < most_black ? 0 : 255;
}

// ---- numbers -----------------------------------------------------------------------------------

void write_rows(const Picture& picture, const Preprocessing& how, float* image) {
  const Ways& ways = picture.ways();
  const size_t size = how.size, plane = size * size;
  const uint32_t channels = picture.channels();
  const int ground = channels == 4 ? find_ground(picture) : 0;
  const std::array<Levels, 3> levels = tabulate(how);
  const std::array<uint8_t, 3> fill = find_fill(how);
  std::array<float*, 3> planes;  // of red, green, blue
  for (size_t c = 0; c < 3; ++c) {
    planes[c] = image + (how.is_bgr ? 2 - c : c) * plane;
    std::fill_n(planes[c], plane, levels[c][fill[c]]);
  }
  picture.resize(false, [&](uint32_t y, const uint8_t* row) {
    const size_t start = (ways.down.place + y) * size + ways.across.place;
    for (size_t x = 0; x < ways.across.side.count; ++x, row += channels) {
      const int through = channels == 4 && ground ? ground - row[3] : 0;
      for (size_t c = 0; c < 3; ++c)
        planes[c][start + x] = levels[c][std::min(row[c] + through, 255)];
    }
  });
}

}  // namespace

void prepare_picture(const Metadata& metadata, const bve_picture* picture, float* image,
                     size_t image_count) {
  const Preprocessing& how = need_preprocessing(metadata);
  if (how.takes_pixels) {
    fail("a file that takes pixels, expected one that takes floats; use bve_read_frame_by");
  }
  if (!picture || !image) {
    fail("%s that is null, expected its memory; give it", picture ? "an image" : "a picture");
  }
  const Layout& layout = find_layout(*picture);
  check(*picture, layout);
  const size_t expected = size_t{3} * how.size * how.size;
  if (image_count != expected) {
    fail("an image of %zu floats, expected %zu, [3, %u, %u]; give as many", image_count, expected,
         how.size, how.size);
  }
  write_rows(Picture(*picture, layout, how), how, image);
}

}  // namespace bve
