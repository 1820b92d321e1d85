// The scalar rows of kernels.inc: what others are tested against, and what any CPU falls back to.
#include <float.h>
#include <math.h>
#include <string.h>

#include "half.h"
#include "kernels.h"

namespace {

const void* at(const void* base, size_t bytes) { return static_cast<const char*>(base) + bytes; }
void* at(void* base, size_t bytes) { return static_cast<char*>(base) + bytes; }

size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

// Not a number is low.
int clamp(float q, int low, int high) {
  return q > high ? high : q > low ? static_cast<int>(q) : low;
}

// ---- the matrix product

void store(const bve_gemm* a, size_t i, size_t j, float value) {
  const size_t row = a->dst_rows ? a->dst_rows[i] : i;
  float* dst = static_cast<float*>(at(a->dst, row * a->dst_stride_bytes)) + j;
  if (a->gate) value *= a->gate[i];
  *dst = a->accumulate ? *dst + value : value;
}

float to_float(float x) { return x; }
float to_float(uint16_t half) { return bve_from_half(half); }

template <typename Data>
void gemm_float(const bve_gemm* a) {
  for (size_t i = 0; i < a->m; i++) {
    const float* lhs = static_cast<const float*>(at(a->lhs, i * a->lhs_stride_bytes));
    for (size_t j = 0; j < a->n; j++) {
      const float* bias =
          static_cast<const float*>(at(a->rhs, j / BVE_PANEL * a->rhs_stride_bytes));
      const Data* data = reinterpret_cast<const Data*>(bias + BVE_PANEL) + j % BVE_PANEL;
      float sum = 0;
      for (size_t k = 0; k < a->k; k++) sum += lhs[k] * to_float(data[k * BVE_PANEL]);
      store(a, i, j, sum + bias[j % BVE_PANEL]);
    }
  }
}

template <size_t KR>
void gemm_qc8(const bve_gemm* a) {
  for (size_t i = 0; i < a->m; i++) {
    const int8_t* lhs = static_cast<const int8_t*>(at(a->lhs, i * a->lhs_stride_bytes));
    for (size_t j = 0; j < a->n; j++) {
      const size_t column = j % BVE_PANEL;
      const auto* head =
          static_cast<const bve_qc8_head*>(at(a->rhs, j / BVE_PANEL * a->rhs_stride_bytes));
      const int8_t* data = reinterpret_cast<const int8_t*>(head + 1) + column * KR;
      // A head may say anything, and a sum wraps as those of vectors do.
      uint32_t sum = 0u - static_cast<uint32_t>(a->rows[i].zero) * head->sum[column];
      for (size_t k = 0; k < a->k; k++) sum += lhs[k] * data[k / KR * BVE_PANEL * KR + k % KR];
      store(
          a, i, j,
          a->rows[i].scale * head->scale[column] * static_cast<int32_t>(sum) + head->bias[column]);
    }
  }
}

// ---- rows

template <typename T>
T* element(void* dst, bve_lhs lhs, size_t k, size_t i, size_t column) {
  void* panel = at(dst, i / lhs.mr * bve_lhs_stride_bytes(lhs, k));
  return static_cast<T*>(panel) + (column / lhs.kr * lhs.mr + i % lhs.mr) * lhs.kr +
         column % lhs.kr;
}

template <typename T>
void put_zeros(void* dst, bve_lhs lhs, size_t k, size_t i) {
  for (size_t j = k; j < round_up(k, lhs.kr); j++) *element<T>(dst, lhs, k, i, j) = 0;
}

void put(float* dst, float x) { *dst = x; }
void put(uint16_t* dst, float x) { *dst = bve_to_half(x); }

// Stores k floats as row i of the left side.
template <typename T>
void put_row(void* dst, bve_lhs lhs, size_t k, size_t i, const float* src) {
  for (size_t j = 0; j < k; j++) put(element<T>(dst, lhs, k, i, j), src[j]);
  put_zeros<T>(dst, lhs, k, i);
}

void layernorm(const float* src, size_t n, const float* gain, const float* offset, float epsilon,
               float* dst) {
  float mean = 0, variance = 0;
  for (size_t j = 0; j < n; j++) mean += src[j];
  mean /= n;
  for (size_t j = 0; j < n; j++) variance += (src[j] - mean) * (src[j] - mean);
  const float factor = 1 / sqrtf(variance / n + epsilon);
  for (size_t j = 0; j < n; j++) dst[j] = (src[j] - mean) * factor * gain[j] + offset[j];
}

// Row i, before it is packed, in scratch.
const float* prepare(const bve_pack* a, size_t i) {
  const size_t row = a->src_rows ? a->src_rows[i] : i;
  const float* src = static_cast<const float*>(at(a->src, row * a->src_stride_bytes));
  if (a->before == bve_as_is) return src;
  if (a->before == bve_layernorm) {
    layernorm(src, a->k, a->gain, a->offset, a->epsilon, a->scratch);
  } else {
    // erfc keeps the left tail's digits, which 1 + erf cancels.
    for (size_t j = 0; j < a->k; j++) a->scratch[j] = 0.5f * src[j] * erfcf(-0.70710678f * src[j]);
  }
  return a->scratch;
}

template <typename T>
void pack_float(const bve_pack* a) {
  for (size_t i = 0; i < a->m; i++) put_row<T>(a->dst, a->lhs, a->k, i, prepare(a, i));
}

void pack_qd8(const bve_pack* a) {
  const int shift = a->lhs.is_unsigned ? 0 : 128;
  for (size_t i = 0; i < a->m; i++) {
    const float* src = prepare(a, i);
    float low = 0, high = 0, odd = 0;  // odd: NaN where a value is NaN or infinite
    for (size_t j = 0; j < a->k; j++) {
      low = fminf(low, src[j]);
      high = fmaxf(high, src[j]);
      odd += 0 * src[j];
    }
    const float span = high - low + odd, range = span > FLT_MIN ? span : 1, inverse = 255 / range;
    const float zero = nearbyintf(fminf(fmaxf(-low * inverse, 0), 255));
    for (size_t j = 0; j < a->k; j++)
      *element<int8_t>(a->dst, a->lhs, a->k, i, j) =
          clamp(nearbyintf(src[j] * inverse + zero), 0, 255) - shift;
    put_zeros<int8_t>(a->dst, a->lhs, a->k, i);
    a->rows[i] = {isfinite(span) ? range / 255 : NAN, static_cast<int>(zero) - shift};
  }
}

// Exponentials over their largest, in place; returns their sum.
float exponentiate(float* scores, size_t n) {
  float largest = scores[0], sum = 0;
  for (size_t j = 1; j < n; j++) largest = fmaxf(largest, scores[j]);
  for (size_t j = 0; j < n; j++) sum += scores[j] = expf(scores[j] - largest);
  return sum;
}

template <typename T>
void softmax_float(const bve_softmax* a) {
  for (size_t i = 0; i < a->m; i++) {
    float* scores = static_cast<float*>(at(a->scores, i * a->scores_stride_bytes));
    const float sum = exponentiate(scores, a->n);
    for (size_t j = 0; j < a->n; j++) scores[j] /= sum;
    put_row<T>(a->dst, a->lhs, a->n, i, scores);
  }
}

void softmax_qd8(const bve_softmax* a) {
  const int shift = a->lhs.is_unsigned ? 0 : 128;
  for (size_t i = 0; i < a->m; i++) {
    float* scores = static_cast<float*>(at(a->scores, i * a->scores_stride_bytes));
    const float sum = exponentiate(scores, a->n);
    for (size_t j = 0; j < a->n; j++)
      *element<int8_t>(a->dst, a->lhs, a->n, i, j) =
          clamp(nearbyintf(255 * scores[j]), 0, 255) - shift;
    put_zeros<int8_t>(a->dst, a->lhs, a->n, i);
    a->rows[i] = {1 / (255 * sum), -shift};
  }
}

// ---- keys and values

// Column j of the right side is src[j * columns + r * depth], for r below k.
void pack_rhs(const bve_pack_rhs* a, size_t n, size_t k, size_t column_bytes, size_t depth_bytes) {
  const size_t stride = bve_rhs_stride_bytes(a->packing, k), kr = bve_rhs_kr(a->packing);
  memset(a->dst, 0, round_up(n, BVE_PANEL) / BVE_PANEL * stride);
  for (size_t j = 0; j < n; j++) {
    const size_t column = j % BVE_PANEL;
    void* panel = at(a->dst, j / BVE_PANEL * stride);
    float* bias = static_cast<float*>(panel);
    bve_qc8_head* head = static_cast<bve_qc8_head*>(panel);
    const auto value = [&](size_t r) {
      return *static_cast<const float*>(at(a->src, j * column_bytes + r * depth_bytes));
    };
    if (a->packing == bve_f32p) {
      for (size_t r = 0; r < k; r++) bias[(r + 1) * BVE_PANEL + column] = value(r);
    } else if (a->packing == bve_f16p) {
      uint16_t* data = reinterpret_cast<uint16_t*>(bias + BVE_PANEL);
      for (size_t r = 0; r < k; r++) data[r * BVE_PANEL + column] = bve_to_half(value(r));
    } else {
      float largest = 0, odd = 0;
      for (size_t r = 0; r < k; r++) {
        largest = fmaxf(largest, fabsf(value(r)));
        odd += 0 * value(r);
      }
      if (!(largest > FLT_MIN)) largest = 1;
      int8_t* data = reinterpret_cast<int8_t*>(head + 1);
      head->scale[column] = largest / 127 + odd;
      for (size_t r = 0; r < k; r++) {
        const int q = clamp(nearbyintf(value(r) * (127 / largest)), -127, 127);
        data[(r / kr * BVE_PANEL + column) * kr + r % kr] = q;
        head->sum[column] += q;
      }
    }
  }
}

// Rises with a score. Also of what is not a number, so that exactly k are selected of any.
uint32_t order(float score) {
  uint32_t bits;
  memcpy(&bits, &score, sizeof bits);
  return bits & 0x7fffffff;
}

}  // namespace

void bve_gemm_f32_f32_f32p_1x16_scalar(const bve_gemm* a) { gemm_float<float>(a); }
void bve_gemm_f32_f32_f16p_1x16_scalar(const bve_gemm* a) { gemm_float<uint16_t>(a); }
void bve_gemm_f32_qd8_qc8p_1x16x4_scalar(const bve_gemm* a) { gemm_qc8<4>(a); }
void bve_gemm_f32_qd8_qc8p_1x16x8_scalar(const bve_gemm* a) { gemm_qc8<8>(a); }

void bve_pack_f32_f32_u1_scalar(const bve_pack* a) { pack_float<float>(a); }
void bve_pack_f16_f32_u1_scalar(const bve_pack* a) { pack_float<uint16_t>(a); }
void bve_pack_qd8_f32_u1_scalar(const bve_pack* a) { pack_qd8(a); }

void bve_softmax_f32_f32_u1_scalar(const bve_softmax* a) { softmax_float<float>(a); }
void bve_softmax_f16_f32_u1_scalar(const bve_softmax* a) { softmax_float<uint16_t>(a); }
void bve_softmax_qd8_f32_u1_scalar(const bve_softmax* a) { softmax_qd8(a); }

void bve_keys_f32_u1_scalar(const bve_pack_rhs* a) {
  pack_rhs(a, a->n, a->d, a->src_stride_bytes, sizeof(float));
}
void bve_values_f32_u1_scalar(const bve_pack_rhs* a) {
  pack_rhs(a, a->d, a->n, sizeof(float), a->src_stride_bytes);
}

void bve_route_f32_u1_scalar(const bve_route* a) {
  float* scores = a->scratch;
  for (size_t i = 0; i < a->n; i++) {
    const float* src = static_cast<const float*>(at(a->src, i * a->src_stride_bytes));
    float mean = 0, variance = 0, dot = 0;
    for (size_t j = 0; j < a->c; j++) mean += src[j];
    mean /= a->c;
    for (size_t j = 0; j < a->c; j++) variance += (src[j] - mean) * (src[j] - mean);
    const float factor = 1 / sqrtf(variance / a->c + a->epsilon);
    for (size_t j = 0; j < a->c; j++)
      dot += ((src[j] - mean) * factor * a->gain[j] + a->offset[j]) * a->weight[j];
    scores[i] = dot + a->bias;
  }
  const float sum = exponentiate(scores, a->n);
  for (size_t i = 0; i < a->n; i++) scores[i] /= sum;

  size_t selected = 0, skipped = 0;
  for (size_t i = 0; i < a->n; i++) {
    size_t better = 1;  // token 0
    for (size_t j = 1; j < a->n; j++) {
      const uint32_t x = order(scores[j]), y = order(scores[i]);
      better += x > y || (x == y && j < i);
    }
    if (i == 0 || better < a->k) {
      const float s = a->n * scores[i];
      a->gate[selected] = 2 * s / (1 + s);
      a->selected[selected++] = static_cast<int32_t>(i);
    } else {
      a->skipped[skipped++] = static_cast<int32_t>(i);
    }
  }
}

// ---- frames

namespace {

int saturate(int x) { return x < INT16_MIN ? INT16_MIN : x > INT16_MAX ? INT16_MAX : x; }
int multiply(int x, int factor) { return (x * factor + (1 << 14)) >> 15; }
uint8_t to_level(int x) { return static_cast<uint8_t>(x < 0 ? 0 : x > 255 ? 255 : x); }
uint8_t round_down(int x) { return to_level(saturate(x) >> 6); }

}  // namespace

void bve_yuv_u8_u8_u1_scalar(const bve_yuv* a) {
  for (size_t x = 0; x < a->n; x++) {
    const int u = (a->u[x / 2 * a->uv_step] - 128) * 256;
    const int v = (a->v[x / 2 * a->uv_step] - 128) * 256;
    const int green = multiply(u, a->green_u) + multiply(v, a->green_v);
    for (int row = 0; row < 2; row++) {
      const int y = multiply(a->y[row][x] << 7, a->gain);
      a->dst[0][x * 2 + row] = round_down(y + multiply(v, a->red_v) + a->offset);
      a->dst[1][x * 2 + row] = round_down(y + green + a->offset);
      a->dst[2][x * 2 + row] = round_down(y + multiply(u, a->blue_u) + a->offset);
    }
  }
}

void bve_rgb_u8_u8_u1_scalar(const bve_rgb* a) {
  const uint8_t at[3] = {a->red, 1, static_cast<uint8_t>(2 - a->red)};
  for (size_t x = 0; x < a->n; x++)
    for (int row = 0; row < 2; row++)
      for (int c = 0; c < 3; c++) a->dst[c][x * 2 + row] = a->rows[row][x * a->bytes + at[c]];
}

void bve_down_i16_u8_u1_scalar(const bve_down* a) {
  for (size_t x = 0; x < a->n; x++) {
    int32_t sum = 1 << (a->shift - 1);
    for (size_t p = 0; p < a->pairs; p++)
      sum += a->weights[p * 2] * a->src[p][x * 2] + a->weights[p * 2 + 1] * a->src[p][x * 2 + 1];
    sum >>= a->shift;
    a->dst[x] = static_cast<int16_t>(sum < 0 ? 0 : sum > a->most ? a->most : sum);
  }
}

void bve_across_u8_i16_u1_scalar(const bve_across* a) {
  for (size_t i = 0; i < a->n; i++)
    for (int c = 0; c < 3; c++) {
      int32_t sum = 1 << (a->shift - 1);
      for (size_t j = 0; j < a->depth; j++)
        sum += a->weights[i * a->depth + j] * a->src[c][a->starts[i] + j];
      a->dst[static_cast<ptrdiff_t>(i) * a->dst_stride_bytes + c * a->dst_channel_bytes] =
          to_level(sum >> a->shift);
    }
}
