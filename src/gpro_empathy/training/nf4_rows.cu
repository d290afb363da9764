// Products of a few rows with NF4 weights on tensor cores, for GPUs of compute capability 8.0 and later:
// out (M, N) = x (M, K) * W (N, K) transposed, for M up to 8.
//
// W is as bitsandbytes packs it: two codes a byte, the first in the high half, row after row, and one
// float32 scale for every 64 codes. A byte becomes two bfloat16 by a table in shared memory, of which
// every lane has a copy of its own, so that no two lanes wait for one bank. The scale multiplies the
// float32 sum of its 64 products, and not each weight.
//
// A warp takes 16 rows of W and a share of K. In mma.m16n8k16 thread (g, t), g = lane / 4,
// t = lane % 4, holds rows g and g + 8 of W and column g of x transposed. Which k a thread's registers
// stand for is free as long as W and x agree: thread t takes the 16 codes from 16 t on of each 64, so
// that it loads 8 bytes of each of its rows of W, and 32 of its row of x.

#include <cuda_bf16.h>
#include <cstdint>

namespace {

constexpr int WARPS = 8, BLOCK = 64;

// NF4 (Dettmers et al. 2023, QLoRA, appendix E), as bitsandbytes rounds it.
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

}  // namespace

// Returns a CUDA error, 0 if there is none. N must be a multiple of 16 `tiles`, which is 1 or 2, K of 64;
// `stride` is that of the rows of `out`.
extern "C" int nf4_rows(const void* x, const void* w, const void* scales, void* out, int M, int N, int K, int stride, int tiles,
                        void* stream) {
    const int bytes = 256 * 32 * 4;
    auto kernel = tiles == 1 ? rows<1> : rows<2>;
    kernel<<<N / 16 / tiles, WARPS * 32, bytes, (cudaStream_t)stream>>>(
        (const __nv_bfloat16*)x, (const uint8_t*)w, (const float*)scales, (__nv_bfloat16*)out, M, N, K, stride);
    return (int)cudaGetLastError();
}
