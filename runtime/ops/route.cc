#include "ops/ops.h"

namespace bve {
namespace {

float* take_scores(const Frame& frame, const RouteArgs& args, Bump& bump) {
  return bump.take<float>(round_up(frame.shapes[args.src].rows, 16));
}

}  // namespace

void RouteOp::check(OpValidator& validator, const Args& args) {
  const Buffer& src = validator.buffer(args.src);
  for (const uint32_t* vector : {&args.gain, &args.offset, &args.weight}) {
    validator.need_vector(*vector, src.columns);
  }
  validator.need_vector(args.bias, 1);
  validator.need(args.k <= src.rows, args.k, "at most %u, its src's rows", src.rows);
  validator.need_shape(args.selected, 1, args.k);
  validator.need_shape(args.gate, 1, args.k);
  validator.set_bound(args.selected, src.rows);
  validator.need((args.skipped == kNone) == (args.k == src.rows), args.skipped,
                 "a buffer where k, %u, is less than %u, its src's rows, and none elsewhere",
                 args.k, src.rows);
  if (args.skipped == kNone) return;
  validator.need_shape(args.skipped, 1, src.rows - args.k);
  validator.set_bound(args.skipped, src.rows);
}

Cut RouteOp::cut(const Frame& frame, const Args& args, Phase) {
  return {1, 0, size_t{frame.shapes[args.src].rows} * frame.columns(args.src) * kWorkOfFloat};
}

void RouteOp::touch(const Frame&, const Args&, Phase, Accesses&) {}

Space RouteOp::measure(const Frame& frame, const Args& args, const Kernels&) {
  Bump bump(nullptr);
  take_scores(frame, args, bump);
  return {bump.used(), 0};
}

void RouteOp::execute(const Frame& frame, const Args& args, const Work& work) {
  Bump bump(work.scratch);
  bve_route route{};
  route.n = frame.shapes[args.src].rows;
  route.c = frame.columns(args.src);
  route.k = args.k;
  route.src = frame.floats(args.src);
  route.src_stride_bytes = route.c * sizeof(float);
  route.gain = frame.weights.floats(args.gain);
  route.offset = frame.weights.floats(args.offset);
  route.weight = frame.weights.floats(args.weight);
  route.bias = *frame.weights.floats(args.bias);
  route.epsilon = args.epsilon;
  route.scratch = take_scores(frame, args, bump);
  route.selected = frame.list(args.selected);
  route.skipped = frame.list(args.skipped);
  route.gate = frame.floats(args.gate);
  work.kernels.route->run(&route);
}

Cost RouteOp::measure_cost(const Frame& frame, const Args& args) {
  const uint64_t macs = uint64_t{frame.shapes[args.src].rows} * frame.columns(args.src);
  return {macs, bytes_of(frame, args.src) + bytes_of(frame, args.selected) +
                    bytes_of(frame, args.skipped) + bytes_of(frame, args.gate)};
}

}  // namespace bve
