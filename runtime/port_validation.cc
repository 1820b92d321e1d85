// read_tables(): what an entry's ports say of its buffers.
#include <vector>

#include "validation.h"

namespace bve {

void validate_ports(const Subject& subject, uint32_t index) {
  const Entry& entry = subject.table<Entry>(subject.header().entries)[index];
  const auto ports = subject.table<Port>(subject.header().ports);
  const Buffer* const buffers =
      subject.table<Buffer>(subject.header().buffers).first + entry.first_buffer;
  std::vector<bool> taken(entry.buffers);
  const uint32_t first = entry.first_port, end = first + entry.ports;
  for (uint32_t i = first; i < end; ++i) {
    const Port& port = ports[i];
    const auto refuse = [&](const auto& field, const char* name, const std::string& expected) {
      subject.refuse(field, path_of("ports", i, name), expected);
    };
    subject.check_name(port.name, "ports", i);
    if (port.name.bytes == 0) refuse(port.name.bytes, "name.bytes", "1 or more");
    for (uint32_t other = first; other < i; ++other) {
      if (subject.text(ports[other].name) == subject.text(port.name))
        refuse(port.name.offset, "name.offset", "that of a name which no other port of it has");
    }
    if (port.direction > kOutput) refuse(port.direction, "direction", "0 or 1");
    if (i == first && port.direction != kInput)
      refuse(port.direction, "direction", "0 in the first");
    if (i + 1 == end && port.direction != kOutput)
      refuse(port.direction, "direction", "1 in the last");
    if (i > first && port.direction < ports[i - 1].direction)
      refuse(port.direction, "direction", "1, behind one that is given");
    if (port.reserved != 0) refuse(port.reserved, "reserved", "0");
    if (port.buffer >= entry.buffers)
      refuse(port.buffer, "buffer", "less than " + std::to_string(entry.buffers));
    if (taken[port.buffer]) refuse(port.buffer, "buffer", "one that no other port has");
    taken[port.buffer] = true;
    const Buffer& buffer = buffers[port.buffer];
    if (buffer.type != BufferType::kF32)
      refuse(port.buffer, "buffer", "a buffer of type 0, as a port's is");
    if (port.rank < 1 || port.rank > std::size(port.sides)) refuse(port.rank, "rank", "1 to 6");
    uint64_t elements = 1;
    for (uint32_t side = 0; side < std::size(port.sides); ++side) {
      const std::string name = "sides[" + std::to_string(side) + "]";
      const uint32_t& length = port.sides[side];
      if (side >= port.rank && length != 0) refuse(length, name.c_str(), "0, behind the last");
      if (side >= port.rank) continue;
      if (length < 1 || length > kMaxDim)
        refuse(length, name.c_str(), "1 to " + std::to_string(kMaxDim));
      elements *= length;
      if (elements > kMaxArenaBytes) refuse(length, name.c_str(), "fewer, of such a buffer");
    }
    const uint64_t there = uint64_t{buffer.rows} * buffer.columns;
    if (elements != there) {
      refuse(port.sides[0], "sides[0]",
             "sides of " + std::to_string(there) + " elements together, as its buffer " +
                 std::to_string(port.buffer) + " has, and they are of " + std::to_string(elements));
    }
  }
}

}  // namespace bve
