// Runs an image through a .pte whose backend is native: executorch_example FILE.pte IMAGE [METHOD]
// IMAGE is what its input tensor holds: floats of [1, 3, size, size], or pixels, uint8, of a file
// that takes them. Prints the logits, one a line.
// Nothing here is about our backend: linking it is enough.
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstdio>
#include <fstream>
#include <iterator>

using namespace executorch::runtime;
using Bytes = std::vector<uint8_t>;

Bytes read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int fail(const char* what) { return std::fprintf(stderr, "%s\n", what), 1; }  // ExecuTorch logs why

// In an app: MmapDataLoader of ExecuTorch's extension_data_loader, which reads what is used.
struct Loader final : DataLoader {
  explicit Loader(const char* path) : bytes(read(path)) {}
  Result<FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo&) const override {
    if (offset > bytes.size() || size > bytes.size() - offset) return Error::InvalidArgument;
    return FreeableBuffer(bytes.data() + offset, size, nullptr);
  }
  Result<size_t> size() const override { return bytes.size(); }
  const Bytes bytes;
};

int main(int argc, char** argv) {
  if (argc < 3) return fail("usage: executorch_example FILE.pte IMAGE [METHOD]");
  runtime_init();
  Loader loader(argv[1]);
  auto program = Program::load(&loader);
  if (!program.ok()) return fail("FILE.pte is missing or no program");
  const char* name = argc > 3 ? argv[3] : "forward";  // of several keep ratios: "keep_0_5"
  const auto meta = program->method_meta(name);
  if (!meta.ok()) return fail("FILE.pte has no such METHOD");

  // In an app: Module of ExecuTorch's extension_module does this part.
  std::vector<Bytes> buffers(meta->num_memory_planned_buffers());
  std::vector<Span<uint8_t>> spans;
  for (Bytes& buffer : buffers) {
    buffer.resize(meta->memory_planned_buffer_size(spans.size()).get());
    spans.emplace_back(buffer.data(), buffer.size());
  }
  HierarchicalAllocator planned({spans.data(), spans.size()});
  Bytes pool(1 << 20);
  MemoryAllocator allocator(pool.size(), pool.data());
  MemoryManager memory(&allocator, &planned);
  auto method = program->load_method(name, &memory);
  if (!method.ok()) return fail("METHOD cannot be loaded");

  const auto input = meta->input_tensor_meta(0);
  Bytes image = read(argv[2]);
  if (image.size() != input->nbytes()) return fail("IMAGE is missing or not of METHOD's size");
  const auto tensor = executorch::extension::from_blob(
      image.data(), {input->sizes().begin(), input->sizes().end()}, input->scalar_type());
  if (method->set_input(*tensor, 0) != Error::Ok || method->execute() != Error::Ok)
    return fail("METHOD cannot be run");
  const auto logits = method->get_output(0).toTensor();
  for (ssize_t i = 0; i < logits.numel(); ++i)
    std::printf("%.9g\n", logits.const_data_ptr<float>()[i]);
}
