"""Where the benchmarks live publicly."""

HUB = {"mmmu_pro": "MMMU/MMMU_Pro", "mathvision": "MathLLMs/MathVision", "mathvista": "AI4Math/MathVista"}
"""Data sets of the hub; of LogicVista no official one is known."""

REPOSITORIES = {
    "mmmu_pro": "https://github.com/MMMU-Benchmark/MMMU",
    "mathvision": "https://github.com/mathllm/MATH-V",
    "mathvista": "https://github.com/lupantech/MathVista",
    "logicvista": "https://github.com/Yijia-Xiao/LogicVista",
}
