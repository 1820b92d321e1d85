// The kernels of kernels.inc as tables, and which of them a CPU should run.
#pragma once

#include "kernels.h"

struct bve_gemm_row {
  const char* name;
  bve_gemm_fn* run;
  uint32_t isa;
  bve_core core;
  bve_packing packing;
  uint8_t tile_rows, tile_columns;
  bve_lhs lhs;
};

template <typename Fn>
struct bve_kernel_row {
  const char* name;
  Fn* run;
  uint32_t isa;
  bve_type type;  // of the packed left side; of pack and softmax only
};

template <typename Row>
struct bve_list {
  const Row* rows;
  size_t count;
  const Row* begin() const { return rows; }
  const Row* end() const { return rows + count; }
};

bve_list<bve_gemm_row> bve_list_gemms();
bve_list<bve_kernel_row<bve_pack_fn>> bve_list_packs();
bve_list<bve_kernel_row<bve_softmax_fn>> bve_list_softmaxes();
bve_list<bve_kernel_row<bve_pack_rhs_fn>> bve_list_keys();
bve_list<bve_kernel_row<bve_pack_rhs_fn>> bve_list_values();
bve_list<bve_kernel_row<bve_route_fn>> bve_list_routes();
bve_list<bve_kernel_row<bve_yuv_fn>> bve_list_yuvs();
bve_list<bve_kernel_row<bve_rgb_fn>> bve_list_rgbs();
bve_list<bve_kernel_row<bve_down_fn>> bve_list_downs();
bve_list<bve_kernel_row<bve_across_fn>> bve_list_acrosses();

// What this CPU has (ARM: getauxval, Apple: sysctl; x86: cpuid; the operating system's say
// included).
uint32_t bve_detect_isa();
// "neon neondot", or "scalar".
void bve_name_isa(uint32_t isa, char* text, size_t bytes);

// The best kernel for a right side packed so, on a CPU with these instruction sets and, on one of
// several clusters, that core. Never null: there is a scalar one of each.
const bve_gemm_row* bve_select_gemm(bve_packing packing, uint32_t isa, bve_core core);
const bve_kernel_row<bve_pack_fn>* bve_select_pack(bve_type type, uint32_t isa);
const bve_kernel_row<bve_softmax_fn>* bve_select_softmax(bve_type type, uint32_t isa);
const bve_kernel_row<bve_pack_rhs_fn>* bve_select_keys(uint32_t isa);
const bve_kernel_row<bve_pack_rhs_fn>* bve_select_values(uint32_t isa);
const bve_kernel_row<bve_route_fn>* bve_select_route(uint32_t isa);
const bve_kernel_row<bve_yuv_fn>* bve_select_yuv(uint32_t isa);
const bve_kernel_row<bve_rgb_fn>* bve_select_rgb(uint32_t isa);
const bve_kernel_row<bve_down_fn>* bve_select_down(uint32_t isa);
const bve_kernel_row<bve_across_fn>* bve_select_across(uint32_t isa);

// Which packing of int8 this CPU's best kernel wants: bve_qc8p8 with i8mm, else bve_qc8p4.
bve_packing bve_prefer_packing(uint32_t isa);

// pack.cc: plain weights to panels, and one packing of int8 to the other.
// weights [n, k] row by row (a Linear's own layout), scale [n] (qc8p only), bias [n] or null.
void bve_pack_weights_f32(bve_packing packing, size_t n, size_t k, const float* weights,
                          const float* bias, void* dst);  // to bve_f32p or bve_f16p
void bve_pack_weights_qc8(bve_packing packing, size_t n, size_t k, const int8_t* weights,
                          const float* scale, const float* bias, void* dst);
void bve_repack_qc8(bve_packing from, bve_packing to, size_t n, size_t k, const void* src,
                    void* dst);
