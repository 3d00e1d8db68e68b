// Blocks of EMO in one pass, for float32 on a CPU, channels-last.
//
// A block's expanded map is 2 to 8 times as wide as what goes in. Here it never leaves the cache: a
// band of rows is expanded, filtered depth-wise and shrunk before the next. Vectors are GCC's and
// Clang's own (16 floats), so the code runs on every CPU; the register tile is chosen for AVX-512
// and falls back to a smaller one. The weights of a product [N, K] come in panels:
// [ceil(N / 16), K, 16], padded with zeros.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#ifdef __AVX512DQ__
#include <immintrin.h>
#endif

namespace {

constexpr int V = 16;
typedef float vec __attribute__((vector_size(64)));
typedef float loose __attribute__((vector_size(64), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(64)));

#ifdef __AVX512DQ__
constexpr int ROWS = 12;  // 12 × 2 accumulators, 2 panels, of 32 registers
#else
constexpr int ROWS = 3;
#endif

enum Act { NONE = 0, SILU = 1, GELU = 2 };

inline vec load(const float* p) { return *reinterpret_cast<const loose*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<loose*>(p) = v; }
inline vec all(float x) { return x - vec{}; }
inline int64_t padded(int64_t n) { return (n + V - 1) / V * V; }

const ivec LANES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
inline vec masked(vec v, int n) { return LANES < n ? v : vec{}; }

inline vec reciprocal(vec x) {
#ifdef __AVX512DQ__
  vec r = (vec)_mm512_rcp14_ps((__m512)x);
  return r * (2.0f - x * r);  // one Newton step: 28 bits
#else
  return 1.0f / x;
#endif
}

// e^x = 2^n 2^f with n whole and 0 <= f < 1; 2^f by its minimax polynomial (relative error 8e-08,
// found by Remez' algorithm).
inline vec exponential(vec x) {
  vec t = x * 1.44269504f;
#ifdef __AVX512DQ__
  t = (vec)_mm512_min_ps(_mm512_set1_ps(126.0f), (__m512)t);  // NaN stays NaN
  vec f = (vec)_mm512_reduce_ps((__m512)t, 0x01);             // t - floor(t)
#else
  t = t < -126.0f ? all(-126.0f) : t;
  t = t > 126.0f ? all(126.0f) : t;
  ivec n = __builtin_convertvector(t, ivec);
  n += __builtin_convertvector(n, vec) > t;  // towards -infinity: true is -1
  vec f = t - __builtin_convertvector(n, vec);
#endif
  vec p = 1.877576675e-03f * f + 8.989340090e-03f;
  p = p * f + 5.582631805e-02f;
  p = p * f + 2.401536170e-01f;
  p = p * f + 6.931530732e-01f;
  p = p * f + 9.999999251e-01f;
#ifdef __AVX512DQ__
  return (vec)_mm512_scalef_ps((__m512)p, (__m512)t);  // times 2^floor(t); 0 and infinity far out
#else
  return (vec)((ivec)p + (n << 23));
#endif
}

inline vec silu(vec x) { return x * reciprocal(1.0f + exponential(-x)); }

// x · Φ(x) with erf by Abramowitz and Stegun 7.1.26 (absolute error below 1.5e-7).
inline vec gelu(vec x) {
  vec z = x * 0.70710678118f;
  vec a = z < 0.0f ? -z : z;
  vec t = reciprocal(1.0f + 0.3275911f * a);
  vec p = 1.061405429f * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  vec tail = 0.5f * p * t * exponential(-a * a);  // (1 - erf|z|) / 2
  return x * (z < 0.0f ? tail : 1.0f - tail);
}

inline void activate(vec* v, int n, int act) {
  if (act == SILU) {
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) v[i] = silu(v[i]);
  } else if (act == GELU) {
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) v[i] = gelu(v[i]);
  }
}

// R rows of a, lda apart, times P panels of b: tile[r * P + p]. Column i of a lies at index(i).
template <int R, int P, class Index>
inline void product(const float* a, int64_t lda, Index index, const float* b, int64_t k,
                    const float* bias, vec* tile) {
  vec sum[R][P];
  for (int r = 0; r < R; ++r)
    for (int p = 0; p < P; ++p) sum[r][p] = bias ? load(bias + p * V) : vec{};
  const float* b1 = b + k * V;
  for (int64_t i = 0; i < k; ++i) {
    vec w[P];
    const float* column = a + index(i);
    w[0] = load(b + i * V);
    if (P > 1) w[P - 1] = load(b1 + i * V);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      vec x = all(column[r * lda]);
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) sum[r][p] += x * w[p];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int p = 0; p < P; ++p) tile[r * P + p] = sum[r][p];
}

template <int P, int R = ROWS, class Index>
inline void product_of(int rows, const float* a, int64_t lda, Index index, const float* b,
                       int64_t k, const float* bias, vec* tile) {
  if (rows == R) return product<R, P>(a, lda, index, b, k, bias, tile);
  if constexpr (R > 1) product_of<P, R - 1>(rows, a, lda, index, b, k, bias, tile);
}

// The first n < 16 values of v, plus those of `add`.
inline void store_first(float* to, vec v, const float* add, int64_t n) {
  if (add) {
    vec w{};
    if (n == 8) {
      std::memcpy(&w, add, 8 * sizeof(float));
    } else {
      std::memcpy(&w, add, n * sizeof(float));
    }
    v += w;
  }
  if (n == 8)  // a constant length is one instruction, and EMO has no other
    std::memcpy(to, &v, 8 * sizeof(float));
  else
    std::memcpy(to, &v, n * sizeof(float));
}

// rows ≤ ROWS rows of a times all panels, plus bias, activated. Row r goes to out(r), plus
// residual(r) if there is one; only its first n values are written unless it is `roomy`.
template <class Index, class Out, class Residual>
inline void multiply(int rows, const float* a, int64_t lda, Index index, const float* panels,
                     const float* bias, int64_t k, int64_t n, int act, bool roomy, Out out,
                     Residual residual) {
  vec tile[ROWS * 2];
  const int64_t count = padded(n) / V;
  for (int64_t p = 0; p < count; p += 2) {
    const int wide = p + 1 < count ? 2 : 1;
    const float *b = panels + p * k * V, *start = bias ? bias + p * V : nullptr;
    if (wide == 2)
      product_of<2>(rows, a, lda, index, b, k, start, tile);
    else
      product_of<1>(rows, a, lda, index, b, k, start, tile);
    if (act) activate(tile, rows * wide, act);
    for (int r = 0; r < rows; ++r) {
      float* o = out(r);
      const float* add = residual(r);
      for (int w = 0; w < wide; ++w) {
        const int64_t at = (p + w) * V;
        const vec v = tile[r * wide + w];
        if (roomy || at + V <= n) {
          store(o + at, add ? v + load(add + at) : v);
        } else {
          store_first(o + at, v, add ? add + at : nullptr, n - at);
        }
      }
    }
  }
}

// N neighbouring outputs of a depth-wise K×K convolution, 16 channels; u is the first input.
template <int K, int S, int N>
inline void filter(const float* u, int64_t pixel, int64_t row, const float* w, int64_t step,
                   vec bias, vec* out) {
  vec sum[N];
  for (int o = 0; o < N; ++o) sum[o] = bias;
#pragma GCC unroll 5
  for (int y = 0; y < K; ++y) {
#pragma GCC unroll 16
    for (int x = 0; x < (N - 1) * S + K; ++x) {
      vec v = load(u + y * row + x * pixel);
#pragma GCC unroll 4
      for (int o = 0; o < N; ++o)
        if (x - o * S >= 0 && x - o * S < K) sum[o] += v * load(w + (y * K + x - o * S) * step);
    }
  }
  for (int o = 0; o < N; ++o) out[o] = sum[o];
}

const float* data(const at::Tensor& t) {
  TORCH_CHECK(t.scalar_type() == at::kFloat && t.is_contiguous(), "expected contiguous float32");
  return t.const_data_ptr<float>();
}

const float* data(const std::optional<at::Tensor>& t) { return t ? data(*t) : nullptr; }

// A depth-wise convolution: weight [K², M], bias [M], M a multiple of 16.
struct Local {
  const float *weight, *bias;
  int64_t middle, kernel, stride, edge;  // the padding: ceil((K - stride) / 2)

  Local(const at::Tensor& w, const at::Tensor& b, int64_t kernel, int64_t stride)
      : weight(data(w)),
        bias(data(b)),
        middle(w.size(1)),
        kernel(kernel),
        stride(stride),
        edge((kernel - stride + 1) / 2) {
    TORCH_CHECK(w.size(0) == kernel * kernel && middle % V == 0 && b.numel() == middle,
                "the depth-wise weight does not fit");
  }

  int64_t size(int64_t n) const { return (n + 2 * edge - kernel) / stride + 1; }

  // How many pieces each image is cut into, so that all threads are busy.
  int64_t pieces(int64_t batch, int64_t height) const {
    return std::min(size(height), (at::get_num_threads() + batch - 1) / batch);
  }
};

// `count` neighbouring outputs, all channels: SiLU(filter(u)) (+ u): d [count, M].
template <int K, int S>
inline void depthwise(const Local& local, const float* u, int64_t row, int count, bool skip,
                      float* d) {
  int64_t m = local.middle;
  vec out[ROWS + 3];
  for (int64_t c = 0; c < m; c += V) {
    vec bias = load(local.bias + c);
    const float* w = local.weight + c;
    int x = 0;
    for (; x + 4 <= count; x += 4) filter<K, S, 4>(u + x * S * m + c, m, row, w, m, bias, out + x);
    if (count - x == 3) filter<K, S, 3>(u + x * S * m + c, m, row, w, m, bias, out + x);
    if (count - x == 2) filter<K, S, 2>(u + x * S * m + c, m, row, w, m, bias, out + x);
    if (count - x == 1) filter<K, S, 1>(u + x * S * m + c, m, row, w, m, bias, out + x);
    activate(out, count, SILU);
    const float* centre = u + (K / 2) * (row + m) + c;
    for (x = 0; x < count; ++x) store(d + x * m + c, skip ? out[x] + load(centre + x * m) : out[x]);
  }
}

using Depthwise = void (*)(const Local&, const float*, int64_t, int, bool, float*);

Depthwise depthwise_of(int64_t k, int64_t s) {
  if (k == 3 && s == 1) return depthwise<3, 1>;
  if (k == 3 && s == 2) return depthwise<3, 2>;
  if (k == 5 && s == 1) return depthwise<5, 1>;
  if (k == 5 && s == 2) return depthwise<5, 2>;
  TORCH_CHECK(false, "depth-wise kernel ", k, " with stride ", s, "; expected 3 or 5, and 1 or 2");
}

constexpr int64_t BAND = 1 << 16;  // floats of a band of the expanded map: a quarter of a megabyte

// The tile length, at most ROWS, that divides n most evenly.
inline int64_t even(int64_t n) {
  const int64_t parts = (n + ROWS - 1) / ROWS;
  return (n + parts - 1) / parts;
}

const float* nothing(int) { return nullptr; }
constexpr auto next_to = [](int64_t i) { return i; };  // columns that are neighbours

inline float total(vec v) {
#ifdef __AVX512DQ__
  return _mm512_reduce_add_ps((__m512)v);
#else
  float lanes[V];
  store(lanes, v);
  for (int d = V / 2; d; d /= 2)
    for (int i = 0; i < d; ++i) lanes[i] += lanes[i + d];
  return lanes[0];
#endif
}

// LayerNorm of one position in place; all have room for whole vectors, zeros behind n.
void normalise(float* x, const float* weight, const float* bias, float eps, int64_t n) {
  vec sum{}, square{};
  for (int64_t c = 0; c < n; c += V) sum += load(x + c);
  const float mean = total(sum) / n;
  for (int64_t c = 0; c < n; c += V) {
    vec e = load(x + c) - mean;
    e = c + V > n ? masked(e, n - c) : e;
    square += e * e;
  }
  const float scale = 1.0f / std::sqrt(total(square) / n + eps);
  for (int64_t c = 0; c < n; c += V)
    store(x + c, (load(x + c) - mean) * scale * load(weight + c) + load(bias + c));
}

// Walks over the images in bands of rows: `expand(image, row, count, at)` writes `count` rows of
// the expanded map [height, width, M], pixel (r, q) of them to at(r, q); the depth-wise convolution
// follows, and `take(image, piece, row, column, n, d)` gets n neighbouring outputs d [n, M]. Each
// image is cut into local.pieces(…) pieces, so that all threads are busy.
template <class Expand, class Take>
void sweep(const Local& local, int64_t batch, int64_t height, int64_t width, bool skip,
           Expand expand, Take take) {
  if (batch == 0) return;
  const int64_t m = local.middle, stride = local.stride, edge = local.edge;
  const int64_t rows = local.size(height), columns = local.size(width), tile = even(columns);
  const int64_t line = (width + 2 * edge + stride) * m;  // a padded row of the expanded map
  const int64_t fit = (BAND / line - local.kernel) / stride + 1;
  const int64_t band = std::min(rows, std::max<int64_t>(1, fit));
  const int64_t size = ((band - 1) * stride + local.kernel) * line;
  const int64_t pieces = local.pieces(batch, height);
  const Depthwise filter_row = depthwise_of(local.kernel, stride);
  at::parallel_for(0, batch * pieces, 1, [&](int64_t begin, int64_t end) {
    static thread_local std::vector<float> memory;
    memory.resize(std::max<size_t>(memory.size(), size + ROWS * m + V));
    float *u = memory.data(), *d = u + size;
    for (int64_t at = begin; at < end; ++at) {
      const int64_t image = at / pieces, piece = at % pieces;
      const int64_t first = rows * piece / pieces, last = rows * (piece + 1) / pieces;
      int64_t have = first * stride - edge;  // the next row of the expanded map
      for (int64_t top = first; top < last; top += band) {
        const int64_t low = top * stride - edge;  // the row in line 0 of u
        const int64_t bottom = std::min(top + band, last);
        const int64_t need = (bottom - 1) * stride - edge + local.kernel;
        const int64_t inside = std::min(need, height);
        auto at_line = [&](int64_t row) { return u + (row - low) * line; };
        if (have > low && top > first)
          std::memmove(u, u + band * stride * line, (have - low) * line * sizeof(float));
        have = std::max(have, low);
        for (; have < need && have < 0; ++have) std::fill_n(at_line(have), line, 0.0f);
        if (have < inside) {
          for (int64_t row = have; row < inside; ++row) {
            std::fill_n(at_line(row), edge * m, 0.0f);
            std::fill_n(at_line(row) + (edge + width) * m, line - (edge + width) * m, 0.0f);
          }
          float* start = at_line(have) + edge * m;
          expand(image, have, inside - have,
                 [=](int64_t r, int64_t q) { return start + r * line + q * m; });
          have = inside;
        }
        for (; have < need; ++have) std::fill_n(at_line(have), line, 0.0f);
        for (int64_t row = top; row < bottom; ++row) {
          for (int64_t c = 0; c < columns; c += tile) {
            const int64_t n = std::min(tile, columns - c);
            filter_row(local, at_line(row * stride - edge) + c * stride * m, line, n, skip, d);
            take(image, piece, row, c, n, d);
          }
        }
      }
    }
  });
}

// The expansion of a block: u = act(z W + b), with z = x or its LayerNorm. Without weights u = x.
struct Expansion {
  int64_t channels;
  const float* bias;
  int act;
  const float *gain, *shift;  // of the LayerNorm, if there is one
  float eps;
};

// A block over `batch` images: x [batch, H, W, C] → y [batch, H', W', out], plus `residual`, if
// there is one. The expansion's weights of an image are panels(image).
template <class Panels>
void run(const Local& local, int64_t batch, int64_t height, int64_t width, bool skip,
         const float* x, const Expansion& expansion, Panels panels, const float* shrink, int64_t k,
         const float* residual, float* y, int64_t out) {
  const int64_t m = local.middle, rows = local.size(height), columns = local.size(width);
  const int64_t channels = expansion.channels, pitch = padded(channels);
  sweep(
      local, batch, height, width, skip,
      [&](int64_t image, int64_t row, int64_t count, auto at) {
        const float *a = x + (image * height + row) * width * channels, *weights = panels(image);
        const int64_t pixels = count * width, share = even(pixels);
        std::vector<float> normal(expansion.gain ? ROWS * pitch : 0);
        for (int64_t q = 0, r0 = 0, c0 = 0; q < pixels; q += share) {
          const int n = std::min(share, pixels - q);
          float* to[ROWS];
          for (int r = 0; r < n; ++r) {
            to[r] = at(r0, c0);
            if (++c0 == width) c0 = 0, ++r0;
          }
          const float* z = a + q * channels;
          if (!weights) {
            for (int r = 0; r < n; ++r) {
              std::copy_n(z + r * channels, channels, to[r]);
              std::fill_n(to[r] + channels, m - channels, 0.0f);
            }
            continue;
          }
          if (expansion.gain) {
            for (int r = 0; r < n; ++r) {
              std::copy_n(z + r * channels, channels, normal.data() + r * pitch);
              normalise(normal.data() + r * pitch, expansion.gain, expansion.shift, expansion.eps,
                        channels);
            }
            z = normal.data();
          }
          multiply(
              n, z, expansion.gain ? pitch : channels, next_to, weights, expansion.bias, channels,
              m, expansion.act, true, [&](int r) { return to[r]; }, nothing);
        }
      },
      [&](int64_t image, int64_t, int64_t row, int64_t column, int64_t n, const float* d) {
        const int64_t at = ((image * rows + row) * columns + column) * out;
        multiply(
            n, d, m, next_to, shrink, nullptr, k, out, NONE, false,
            [&](int i) { return y + at + i * out; },
            [&](int i) { return residual ? residual + at + i * out : nullptr; });
      });
}

// shrink(SiLU(local(u)) (+ u)) (+ residual) with u = act(expand(norm(x))), or u = x without an
// expansion; norm is a LayerNorm if given: x [B, H, W, C] → [B, H', W', out].
at::Tensor block(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                 const std::optional<at::Tensor>& expand,
                 const std::optional<at::Tensor>& expand_bias, int64_t act,
                 const std::optional<at::Tensor>& norm_weight,
                 const std::optional<at::Tensor>& norm_bias, double eps, const at::Tensor& weight,
                 const at::Tensor& bias, int64_t kernel, int64_t stride, const at::Tensor& shrink,
                 int64_t out, bool skip) {
  const int64_t batch = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3);
  const Local local(weight, bias, kernel, stride);
  const int64_t m = local.middle;
  TORCH_CHECK(height && width, "expected a map with at least one position");
  TORCH_CHECK(expand ? expand->size(0) * V == m && expand->size(1) == channels : channels <= m,
              "the expansion does not fit ", channels, " channels");
  TORCH_CHECK(shrink.size(1) <= m && shrink.size(0) * V == padded(out), "shrink does not fit");
  at::Tensor y = at::empty({batch, local.size(height), local.size(width), out}, x.options());
  TORCH_CHECK(!residual || residual->sizes() == y.sizes(), "the residual does not fit");
  const Expansion expansion{channels,          data(expand_bias), (int)act,
                            data(norm_weight), data(norm_bias),   (float)eps};
  const float* panels = data(expand);
  run(
      local, batch, height, width, skip, data(x), expansion, [=](int64_t) { return panels; },
      data(shrink), shrink.size(1), data(residual), y.mutable_data_ptr<float>(), out);
  return y;
}

// The first convolution (3×3, stride 2), the stem's block with squeeze-excitation, and the block
// that follows: x [B, C, H, W] with any strides → [B, H', W', out]. Between the stem's shrink and
// the next expansion there is nothing but the factors f of squeeze-excitation: E (S (f ⊙ d)) = (E S
// diag(f)) d, one product, with weights of its own for each image; `expand` is E S.
at::Tensor start(const at::Tensor& x, const at::Tensor& conv, const at::Tensor& conv_bias,
                 int64_t act, const at::Tensor& stem_weight, const at::Tensor& stem_bias,
                 int64_t stem_kernel, const std::optional<at::Tensor>& reduce,
                 const std::optional<at::Tensor>& reduce_bias,
                 const std::optional<at::Tensor>& excite,
                 const std::optional<at::Tensor>& excite_bias, const at::Tensor& expand,
                 const at::Tensor& expand_bias, int64_t expand_act, const at::Tensor& weight,
                 const at::Tensor& bias, int64_t kernel, int64_t stride, const at::Tensor& shrink,
                 int64_t out) {
  const int64_t batch = x.size(0), channels = x.size(1);
  const int64_t height = (x.size(2) + 1) / 2, width = (x.size(3) + 1) / 2, share = even(width);
  const int64_t sc = x.stride(1), sh = x.stride(2), sw = x.stride(3);
  const Local stem(stem_weight, stem_bias, stem_kernel, 1), local(weight, bias, kernel, stride);
  const int64_t m = stem.middle, k = expand.size(1), panel = expand.numel();
  const int64_t rows = local.size(height), columns = local.size(width);
  TORCH_CHECK(x.scalar_type() == at::kFloat, "expected float32");
  TORCH_CHECK(height && width, "expected an image with at least one pixel");
  TORCH_CHECK(conv.size(0) * V == m && conv.size(1) == 9 * channels, "the stem does not fit");
  TORCH_CHECK(k <= m && expand.size(0) * V == local.middle, "the expansion does not fit");
  TORCH_CHECK(shrink.size(1) <= local.middle && shrink.size(0) * V == padded(out),
              "shrink does not fit");
  at::Tensor y = at::empty({batch, rows, columns, out}, x.options());
  const float *in = x.const_data_ptr<float>(), *panels = data(conv), *first = data(conv_bias);
  const float *up = data(expand), *down = data(shrink), *w1 = data(reduce), *b1 = data(reduce_bias);
  const float *w2 = data(excite), *b2 = data(excite_bias);
  const Expansion expansion{k, data(expand_bias), (int)expand_act, nullptr, nullptr, 0.0f};
  float* result = y.mutable_data_ptr<float>();
  // Where the values under the convolution lie in an image, and in a copy of a tile's pixels.
  const int64_t patch = 9 * channels, line = 2 * share + 1;
  std::vector<int64_t> offsets(patch), copied(patch);
  for (int64_t i = 0; i < patch; ++i) {
    offsets[i] = i / 9 * sc + i / 3 % 3 * sh + i % 3 * sw;
    copied[i] = i / 3 * line + i % 3;
  }
  // As many images at a time as there are threads: their maps stay in the cache.
  const int64_t group = std::min<int64_t>(batch, at::get_num_threads());
  at::Tensor kept = at::empty({group * height * width * k}, x.options());
  float* maps = kept.mutable_data_ptr<float>();
  std::vector<float> sums, factors(group * panel);
  for (int64_t from = 0; from < batch; from += group) {
    const int64_t images = std::min(group, batch - from);
    const int64_t pieces = stem.pieces(images, height);
    sums.assign(images * pieces * m, 0.0f);
    sweep(
        stem, images, height, width, false,
        [&](int64_t image, int64_t row, int64_t count, auto at) {
          static thread_local std::vector<float> memory;
          memory.resize(std::max<size_t>(memory.size(), 3 * channels * line));
          const float* picture = in + (from + image) * x.stride(0);
          for (int64_t r = 0; r < count; ++r) {
            const int64_t top = 2 * (row + r) - 1;
            for (int64_t q = 0; q < width; q += share) {
              const int n = std::min(share, width - q);
              const int64_t left = 2 * q - 1;
              auto out_at = [&](int i) { return at(r, q + i); };
              if (top >= 0 && left >= 0 && top + 3 <= x.size(2) && left + 2 * n + 1 <= x.size(3)) {
                multiply(
                    n, picture + top * sh + left * sw, 2 * sw,
                    [&](int64_t i) { return offsets[i]; }, panels, first, patch, m, act, true,
                    out_at, nothing);
                continue;
              }
              for (int64_t i = 0; i < 3 * channels; ++i) {  // at the border: a copy with zeros
                const int64_t down = top + i % 3;
                for (int64_t c = 0; c < 2 * n + 1; ++c) {
                  const int64_t right = left + c;
                  const bool inside =
                      down >= 0 && down < x.size(2) && right >= 0 && right < x.size(3);
                  memory[i * line + c] =
                      inside ? picture[i / 3 * sc + down * sh + right * sw] : 0.0f;
                }
              }
              multiply(
                  n, memory.data(), 2, [&](int64_t i) { return copied[i]; }, panels, first, patch,
                  m, act, true, out_at, nothing);
            }
          }
        },
        [&](int64_t image, int64_t piece, int64_t row, int64_t column, int64_t n, const float* d) {
          float* to = maps + ((image * height + row) * width + column) * k;
          float* sum = sums.data() + (image * pieces + piece) * m;
          for (int64_t c = 0; c < k; c += V) {
            vec s = load(sum + c);
            for (int64_t i = 0; i < n; ++i) {
              const vec v = load(d + i * m + c);
              s += v;
              if (c + V <= k)
                store(to + i * k + c, v);
              else
                store_first(to + i * k + c, v, nullptr, k - c);
            }
            store(sum + c, s);
          }
        });
    for (int64_t image = 0; image < images; ++image) {
      std::vector<double> mean(k), hidden(w1 ? reduce->size(0) : 0), factor(k, 1.0);
      for (int64_t piece = 0; piece < pieces; ++piece)
        for (int64_t c = 0; c < k; ++c) mean[c] += sums[(image * pieces + piece) * m + c];
      for (int64_t j = 0; j < (int64_t)hidden.size(); ++j) {
        double sum = b1[j];
        for (int64_t c = 0; c < k; ++c) sum += w1[j * k + c] * mean[c] / (height * width);
        hidden[j] = sum / (1.0 + std::exp(-sum));
      }
      for (int64_t c = 0; c < k && w1; ++c) {
        double sum = b2[c];
        for (size_t j = 0; j < hidden.size(); ++j) sum += w2[c * hidden.size() + j] * hidden[j];
        factor[c] = 1.0 / (1.0 + std::exp(-sum));
      }
      for (int64_t i = 0; i < panel; ++i)
        factors[image * panel + i] = up[i] * (float)factor[i / V % k];
    }
    run(
        local, images, height, width, false, maps, expansion,
        [&](int64_t image) { return factors.data() + image * panel; }, down, shrink.size(1),
        nullptr, result + from * rows * columns * out, out);
  }
  return y;
}

// Softmax over n rows, `step` apart, of 16 columns each.
void softmax(float* x, int64_t step, int64_t n) {
  vec top = load(x), sum{};
  for (int64_t i = 1; i < n; ++i) {
    vec v = load(x + i * step);
    top = top > v ? top : v;
  }
  for (int64_t i = 0; i < n; ++i) {
    vec e = exponential(load(x + i * step) - top);
    sum += e;
    store(x + i * step, e);
  }
  sum = 1.0f / sum;
  for (int64_t i = 0; i < n; ++i) store(x + i * step, load(x + i * step) * sum);
}

// softmax(q kᵀ) z over groups of w² positions, with q, k from z = LayerNorm(x): x [B, H, W, C] →
// the same shape. q comes scaled by head_dim^(-1/2) in its weights; positions beyond the map are
// zeros.
at::Tensor attend(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                  double eps, const at::Tensor& qk, const at::Tensor& qk_bias, int64_t window,
                  int64_t heads, bool remote) {
  const int64_t batch = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3);
  const int64_t n1 = (height + window - 1) / window, n2 = (width + window - 1) / window;
  const int64_t tokens = window * window, wide = padded(tokens), d = channels / heads;
  const int64_t pitch = padded(channels) + V, both = padded(2 * channels);
  TORCH_CHECK(channels % heads == 0 && qk.size(0) * V == both && qk.size(1) == channels,
              "qk does not fit ", channels, " channels");
  at::Tensor y = at::empty(x.sizes(), x.options());
  const float *in = data(x), *gain = data(norm_weight), *shift = data(norm_bias);
  const float *panels = data(qk), *bias = data(qk_bias);
  float* result = y.mutable_data_ptr<float>();
  at::parallel_for(0, batch * n1 * n2, 1, [&](int64_t begin, int64_t end) {
    static thread_local std::vector<float> memory;
    const int64_t size = tokens * (2 * pitch + both + wide) + wide * d + padded(d) * tokens;
    memory.resize(std::max<size_t>(memory.size(), size));
    float *z = memory.data(), *s = z + tokens * pitch, *p = s + tokens * pitch;
    float *scores = p + tokens * both, *q = scores + tokens * wide, *v = q + wide * d;
    std::fill_n(q, wide * d, 0.0f);
    const int64_t tile = even(tokens);
    for (int64_t group = begin; group < end; ++group) {
      const int64_t image = group / (n1 * n2), a = group / n2 % n1, b = group % n2;
      auto position = [&](int64_t t) -> int64_t {
        const int64_t i = t / window, j = t % window;
        const int64_t row = remote ? i * n1 + a : a * window + i;
        const int64_t column = remote ? j * n2 + b : b * window + j;
        if (row >= height || column >= width) return -1;
        return ((image * height + row) * width + column) * channels;
      };
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t at = position(t);
        float* to = z + t * pitch;
        std::fill_n(to + channels, pitch - channels, 0.0f);
        if (at < 0) {
          std::fill_n(to, channels, 0.0f);
        } else {
          std::copy_n(in + at, channels, to);
          normalise(to, gain, shift, eps, channels);
        }
      }
      for (int64_t t = 0; t < tokens; t += tile) {
        const int n = std::min(tile, tokens - t);
        multiply(
            n, z + t * pitch, pitch, next_to, panels, bias, channels, 2 * channels, NONE, true,
            [&](int r) { return p + (t + r) * both; }, nothing);
      }
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t t = 0; t < tokens; ++t) {  // q and v in panels of 16 columns
          const float* from = p + t * both + h * d;
          float* to = q + t / V * d * V + t % V;
          for (int64_t j = 0; j < d; ++j) to[j * V] = from[j];
          for (int64_t j = 0; j < d; j += V)
            store(v + j * tokens + t * V, load(z + t * pitch + h * d + j));
        }
        // The scores stand transposed, a row for a key, so that the softmax needs no sum of lanes.
        for (int64_t t = 0; t < tokens; t += tile) {
          const int n = std::min(tile, tokens - t);
          multiply(
              n, p + t * both + channels + h * d, both, next_to, q, nullptr, d, wide, NONE, true,
              [&](int r) { return scores + (t + r) * wide; }, nothing);
        }
        for (int64_t c = 0; c < wide; c += V) softmax(scores + c, wide, tokens);
        for (int64_t t = 0; t < tokens; t += tile) {
          const int n = std::min(tile, tokens - t);
          multiply(
              n, scores + t, 1, [=](int64_t i) { return i * wide; }, v, nullptr, tokens, padded(d),
              NONE, true, [&](int r) { return s + (t + r) * pitch + h * d; }, nothing);
        }
      }
      for (int64_t t = 0; t < tokens; ++t)
        if (const int64_t at = position(t); at >= 0)
          std::copy_n(s + t * pitch, channels, result + at);
    }
  });
  return y;
}

}  // namespace

TORCH_LIBRARY(tenfold_emo, library) {
  library.def(
      "block(Tensor x, Tensor? residual, Tensor? expand, Tensor? expand_bias, int act, "
      "Tensor? norm_weight, Tensor? norm_bias, float eps, Tensor local, "
      "Tensor local_bias, int kernel, int stride, Tensor shrink, int out, bool skip) -> Tensor");
  library.def(
      "start(Tensor x, Tensor conv, Tensor conv_bias, int act, Tensor stem, Tensor stem_bias, "
      "int stem_kernel, Tensor? reduce, Tensor? reduce_bias, Tensor? excite, Tensor? excite_bias, "
      "Tensor expand, Tensor expand_bias, int expand_act, Tensor local, Tensor local_bias, "
      "int kernel, int stride, Tensor shrink, int out) -> Tensor");
  library.def(
      "attend(Tensor x, Tensor norm_weight, Tensor norm_bias, float eps, Tensor qk, Tensor "
      "qk_bias, "
      "int window, int heads, bool remote) -> Tensor");
}

TORCH_LIBRARY_IMPL(tenfold_emo, CPU, library) {
  library.impl("block", block);
  library.impl("start", start);
  library.impl("attend", attend);
}
