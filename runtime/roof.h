// The machine's own limits, measured: what an op can be compared with.
#pragma once

#include <cstddef>
#include <string>

namespace bve {

// JSON: {"threads", "gmac_per_s": {"f32", "f16", "qd8"}, "read_gb_per_s": [{"bytes", "gb_per_s"},
// ...]}. Of `threads` threads at once, all together, wherever the system puts them: the product's
// own instructions on registers alone (0 where they have none of a type), and reading again and
// again so many bytes, each thread its part. Takes half a second. Throws without memory.
std::string measure_roof(size_t threads);

}  // namespace bve
