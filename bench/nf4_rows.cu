// Products of a few rows with NF4 weights on tensor cores: out (M, N) = x (M, K) * W (N, K) transposed, for M up to 8.
//
// W is as bitsandbytes packs it: two codes a byte, the first in the high half, row after row, and one float32 scale for every
// 64 codes. A byte becomes two bfloat16 by a table in shared memory, of which every lane has a copy of its own, so that no
// two lanes wait for one bank. The scale multiplies the float32 sum of its 64 products, and not each weight.
//
// A warp takes 16 rows of W and a share of K. In mma.m16n8k16 thread (g, t), g = lane / 4, t = lane % 4, holds rows g and
// g + 8 of W and column g of x transposed. Which k a thread's registers stand for is free as long as W and x agree: thread t
// takes the 16 codes from 16 t on of each 64, so that it loads 8 bytes of each of its rows of W, and 32 of its row of x.

#include <cuda_bf16.h>
#include <cstdint>

namespace {

constexpr int WARPS = 8, BLOCK = 64;

__constant__ float CODES[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,
    -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

__device__ __forceinline__ uint32_t two(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t*>(&pair);
}

__device__ __forceinline__ void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// TILES: how many times 16 rows of W a warp takes.
template <int TILES>
__global__ void __launch_bounds__(WARPS * 32)
rows(const __nv_bfloat16* __restrict__ x, const uint8_t* __restrict__ w, const float* __restrict__ scales,
     __nv_bfloat16* __restrict__ out, int M, int N, int K, int stride) {
    extern __shared__ uint32_t table[];  // 256 bytes' pairs, 32 copies
    __shared__ float sums[WARPS][TILES * 16][8];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    for (int byte = warp; byte < 256; byte += WARPS) table[byte * 32 + lane] = two(CODES[byte >> 4], CODES[byte & 15]);
    __syncthreads();

    const int first = blockIdx.x * TILES * 16 + g, blocks = K / BLOCK;
    const uint8_t* codes = w + (size_t)first * (K / 2) + t * 8;
    const float* scale = scales + (size_t)first * blocks;
    const bool real = g < M;
    const __nv_bfloat16* own = x + (size_t)(real ? g : 0) * K + t * 16;
    const uint32_t* mine = table + lane;

    float total[TILES][4] = {};
#pragma unroll 4
    for (int block = warp; block < blocks; block += WARPS) {
        uint2 p[TILES], q[TILES];  // codes of rows g and g + 8 of each tile
        float sp[TILES], sq[TILES];
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            p[i] = __ldcs(reinterpret_cast<const uint2*>(codes + (size_t)(16 * i) * (K / 2) + (size_t)block * 32));
            q[i] = __ldcs(reinterpret_cast<const uint2*>(codes + (size_t)(16 * i + 8) * (K / 2) + (size_t)block * 32));
            sp[i] = __ldg(scale + (size_t)(16 * i) * blocks + block);
            sq[i] = __ldg(scale + (size_t)(16 * i + 8) * blocks + block);
        }
        uint4 b0 = __ldg(reinterpret_cast<const uint4*>(own + block * BLOCK));
        uint4 b1 = __ldg(reinterpret_cast<const uint4*>(own + block * BLOCK) + 1);
        if (!real) b0 = b1 = make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            float c[4] = {0, 0, 0, 0};
#define PAIR(word, byte) mine[(((word) >> (8 * (byte))) & 255u) * 32]
            mma(c, PAIR(p[i].x, 0), PAIR(q[i].x, 0), PAIR(p[i].x, 1), PAIR(q[i].x, 1), b0.x, b0.y);
            mma(c, PAIR(p[i].x, 2), PAIR(q[i].x, 2), PAIR(p[i].x, 3), PAIR(q[i].x, 3), b0.z, b0.w);
            mma(c, PAIR(p[i].y, 0), PAIR(q[i].y, 0), PAIR(p[i].y, 1), PAIR(q[i].y, 1), b1.x, b1.y);
            mma(c, PAIR(p[i].y, 2), PAIR(q[i].y, 2), PAIR(p[i].y, 3), PAIR(q[i].y, 3), b1.z, b1.w);
            total[i][0] += sp[i] * c[0];
            total[i][1] += sp[i] * c[1];
            total[i][2] += sq[i] * c[2];
            total[i][3] += sq[i] * c[3];
        }
    }
    // Of the result thread (g, t) holds rows g and g + 8 of a tile by rows 2 t and 2 t + 1 of x.
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        sums[warp][16 * i + g][2 * t] = total[i][0];
        sums[warp][16 * i + g][2 * t + 1] = total[i][1];
        sums[warp][16 * i + g + 8][2 * t] = total[i][2];
        sums[warp][16 * i + g + 8][2 * t + 1] = total[i][3];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILES * 16 * M; i += WARPS * 32) {
        const int row = i % (TILES * 16), m = i / (TILES * 16);
        float sum = 0;
        for (int j = 0; j < WARPS; j++) sum += sums[j][row][m];
        out[(size_t)m * stride + (size_t)blockIdx.x * TILES * 16 + row] = __float2bfloat16(sum);
    }
}

// LoRA beside it, for one adapter: shrunk (S, M, R) = scale * x (M, K) * A (R, K) transposed, for each of S matrices A.
// A block takes one row of one A. Rows of x whose `mapping` is below 0 want no adapter.
struct Three {
    const __nv_bfloat16* of[3];
};

__global__ void __launch_bounds__(256)
shrink(const __nv_bfloat16* __restrict__ x, Three a, const int* __restrict__ mapping, float* __restrict__ shrunk, int M, int K,
       int R, float scale) {
    __shared__ float sums[8][8];
    const int slice = blockIdx.x / R, rank = blockIdx.x % R, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const __nv_bfloat16* row = a.of[slice] + (size_t)rank * K;
    float total[8] = {};
    for (int k = threadIdx.x * 8; k < K; k += 256 * 8) {
        const uint4 packed = __ldg(reinterpret_cast<const uint4*>(row + k));
        const __nv_bfloat162* weights = reinterpret_cast<const __nv_bfloat162*>(&packed);
#pragma unroll
        for (int m = 0; m < 8; m++) {
            if (m >= M) break;
            const uint4 own = __ldg(reinterpret_cast<const uint4*>(x + (size_t)m * K + k));
            const __nv_bfloat162* values = reinterpret_cast<const __nv_bfloat162*>(&own);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float2 u = __bfloat1622float2(weights[i]), v = __bfloat1622float2(values[i]);
                total[m] += u.x * v.x + u.y * v.y;
            }
        }
    }
#pragma unroll
    for (int m = 0; m < 8; m++) {
        for (int apart = 16; apart; apart /= 2) total[m] += __shfl_xor_sync(0xffffffffu, total[m], apart);
        if (lane == 0) sums[warp][m] = total[m];
    }
    __syncthreads();
    if (threadIdx.x < M) {
        float sum = 0;
        for (int i = 0; i < 8; i++) sum += sums[i][threadIdx.x];
        shrunk[((size_t)slice * M + threadIdx.x) * R + rank] = mapping[threadIdx.x] < 0 ? 0.0f : scale * sum;
    }
}

// out (M, N) += shrunk (S, M, R) * B (N of the slice, R) transposed; the columns of the S slices lie side by side, from
// `begin` on. A thread takes one column.
struct Ends {
    int of[3];
};

template <int R>
__global__ void __launch_bounds__(256)
expand(const float* __restrict__ shrunk, Three b, Ends ends, const int* __restrict__ mapping, __nv_bfloat16* __restrict__ out,
       int M, int begin, int stride) {
    const int n = blockIdx.x * 256 + threadIdx.x;
    const int slice = (n >= ends.of[0]) + (n >= ends.of[1]);
    if (n >= ends.of[2]) return;
    const __nv_bfloat16* row = b.of[slice] + (size_t)(n - (slice ? ends.of[slice - 1] : 0)) * R;
    float weights[R];
#pragma unroll
    for (int i = 0; i < R / 8; i++) {
        const uint4 packed = __ldg(reinterpret_cast<const uint4*>(row) + i);
        const __nv_bfloat162* pairs = reinterpret_cast<const __nv_bfloat162*>(&packed);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float2 pair = __bfloat1622float2(pairs[j]);
            weights[8 * i + 2 * j] = pair.x;
            weights[8 * i + 2 * j + 1] = pair.y;
        }
    }
    for (int m = 0; m < M; m++) {
        if (mapping[m] < 0) continue;
        const float4* values = reinterpret_cast<const float4*>(shrunk + ((size_t)slice * M + m) * R);
        float sum = 0;
#pragma unroll
        for (int i = 0; i < R / 4; i++) {
            const float4 v = __ldg(values + i);
            sum += v.x * weights[4 * i] + v.y * weights[4 * i + 1] + v.z * weights[4 * i + 2] + v.w * weights[4 * i + 3];
        }
        __nv_bfloat16* at = out + (size_t)m * stride + begin + n;
        *at = __float2bfloat16(__bfloat162float(*at) + sum);
    }
}

}  // namespace

// Returns a CUDA error, 0 if there is none. N must be a multiple of 16 `tiles`, K of 64; `stride` is that of the rows of `out`.
extern "C" int nf4_rows(const void* x, const void* w, const void* scales, void* out, int M, int N, int K, int stride, int tiles,
                        void* stream) {
    const int bytes = 256 * 32 * 4;
    auto kernel = tiles == 1 ? rows<1> : rows<2>;
    kernel<<<N / 16 / tiles, WARPS * 32, bytes, (cudaStream_t)stream>>>(
        (const __nv_bfloat16*)x, (const uint8_t*)w, (const float*)scales, (__nv_bfloat16*)out, M, N, K, stride);
    return (int)cudaGetLastError();
}

// x (M, K), M up to 8, K a multiple of 8; up to three matrices A (R, K), of `slices`.
extern "C" int lora_shrink(const void* x, const void* a0, const void* a1, const void* a2, const void* mapping, void* shrunk,
                           int slices, int M, int K, int R, float scale, void* stream) {
    const Three a = {{(const __nv_bfloat16*)a0, (const __nv_bfloat16*)a1, (const __nv_bfloat16*)a2}};
    shrink<<<slices * R, 256, 0, (cudaStream_t)stream>>>((const __nv_bfloat16*)x, a, (const int*)mapping, (float*)shrunk, M, K, R,
                                                         scale);
    return (int)cudaGetLastError();
}

// `end0`, `end1`, `end2` are the columns at which each slice ends; a slice that is not there ends where the one before does.
// R is 32; -1 for any other.
extern "C" int lora_expand(const void* shrunk, const void* b0, const void* b1, const void* b2, const void* mapping, void* out,
                           int end0, int end1, int end2, int M, int R, int begin, int stride, void* stream) {
    if (R != 32) return -1;
    const Three b = {{(const __nv_bfloat16*)b0, (const __nv_bfloat16*)b1, (const __nv_bfloat16*)b2}};
    const Ends ends = {{end0, end1, end2}};
    expand<32><<<(end2 + 255) / 256, 256, 0, (cudaStream_t)stream>>>((const float*)shrunk, b, ends, (const int*)mapping,
                                                                     (__nv_bfloat16*)out, M, begin, stride);
    return (int)cudaGetLastError();
}
