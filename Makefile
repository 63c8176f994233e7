# The front door. `make help` lists the targets; the first one that needs Python sets everything up in .venv.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
CONFIG ?= sim-small
JETS   ?= 20
EVALUATION_JETS ?= 3000
N      ?= 30000
MODEL ?= demo
CHECKPOINT = $(or $(wildcard quantize/trained/$(MODEL).npz),$(MODEL))
NAME       = $(basename $(notdir $(CHECKPOINT)))
ARGS   ?=
JOBS   ?= 2

export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo serve resnet50-rtl resnet50-ladder bench-emulator bench-service soak-service table2 evaluate-demo train-demo
.PHONY: jets physics neutrinos train-resnet50
.PHONY: hls hls-csim hls-synth synth area pipeline selftest board-soak bench-driver package
.PHONY: test sim formal waves registers lint format build-npu clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---------------------------------------------------------------------------------------------------------------------
# Set-up: one virtual environment with everything; only Python, g++ and make come from the system
# ---------------------------------------------------------------------------------------------------------------------

$(VENV)/.installed: pyproject.toml
	@command -v $(PYTHON) g++ make >/dev/null || { \
	  echo "Needs Python 3.11, g++ and make. On Debian 12: apt-get install python3.11-venv g++ make"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. On Debian 12: apt-get install python3.11-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13'
	$(BIN)/uv pip install --system-certs --python $(BIN)/python --editable '.[all]'
	@touch $@

setup: $(VENV)/.installed  ## Make the virtual environment (the other targets do it when needed)

# PyTorch by itself, for what trains in it and for the tests: PyPI's build brings gigabytes of CUDA libraries, which no other target should
# wait for. By pip, which takes a build for the CPU alone where its configuration offers one.
$(VENV)/.torch: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --editable '.[torch]'
	@touch $@

# ---------------------------------------------------------------------------------------------------------------------
# What a user runs
# ---------------------------------------------------------------------------------------------------------------------

demo: $(VENV)/.installed  ## Tag simulated jets with MODEL through the RTL, behind the gRPC service; table and picture
	$(BIN)/python -m sim build --config $(CONFIG)
	$(BIN)/python examples/demo.py --board $(CONFIG) --jets $(JETS) --network $(CHECKPOINT)

serve: $(VENV)/.installed  ## Start the gRPC service with MODEL (demo, or a trained network's .npz) on DEVICE (the Verilated NPU)
	$(BIN)/python -m hls compile --checkpoint $(CHECKPOINT) --board $(CONFIG) --out build/$(NAME).npu
	$(BIN)/python -m host_service serve --program build/$(NAME).npu --classifier $(CHECKPOINT) --device $(or $(DEVICE),rtl)

resnet50-rtl: $(VENV)/.installed  ## One image through ResNet-50 at 224x224 in RTL (CONFIG=zcu104, kv260, u250, sim-small)
	$(BIN)/python benchmarks/resnet50_rtl.py --config $(if $(filter file,$(origin CONFIG)),zcu104,$(CONFIG)) $(ARGS)

resnet50-ladder: $(VENV)/.installed  ## ResNet-50: eager QKeras and hls4ml's C simulation against the golden model (slow)
	$(BIN)/python benchmarks/resnet50_ladder.py --images 4 --csim 1

hls: $(VENV)/.installed  ## hls4ml's Vitis HLS projects of MODEL (demo, resnet50, net.npz), sized for PART and TARGET_MS; report
	$(BIN)/python -m hls vitis --checkpoint $(CHECKPOINT) --out build/hls/$(NAME) $(if $(PART),--part $(PART)) \
	  $(if $(TARGET_MS),--target-ms $(TARGET_MS)) $(ARGS)

hls-csim: $(VENV)/.installed  ## The C simulation of what `make hls` wrote for MODEL against the golden model (resnet50: 4 minutes)
	$(BIN)/python -m hls csim --checkpoint $(CHECKPOINT) --projects build/hls/$(NAME) \
	  --build build/csim/$(NAME) --images $(or $(IMAGES),$(if $(filter resnet50,$(NAME)),1,2)) $(ARGS)

hls-synth: $(VENV)/.installed  ## Vitis HLS on what `make hls` wrote for MODEL, its reports beside the estimates (BOARD=zcu104, u250: bitstream)
	$(BIN)/python -m hls synth --out build/hls/$(NAME) $(if $(BOARD),--board $(BOARD)) $(ARGS)

bench-emulator: $(VENV)/.installed  ## The bit-exact CPU emulator beside ONNX Runtime's int8, Keras and hls4ml's C simulation (10 minutes)
	$(BIN)/python benchmarks/emulator.py --csim

bench-service: $(VENV)/.installed  ## The service beside a stock Triton server: latency and throughput of 1 to 500 clients (15 minutes)
	$(BIN)/python benchmarks/service.py $(ARGS)

soak-service: $(VENV)/.installed  ## 100,000 requests to the service, every answer compared, its memory watched (5 minutes)
	$(BIN)/python -m hls compile --checkpoint quantize/trained/demo.npz --board sim-small --out build/demo.npu
	$(BIN)/python benchmarks/service_soak.py build/demo.npu $(ARGS)

table2: $(VENV)/.installed  ## The paper's Table 2 with our rows beside it
	$(BIN)/python benchmarks/table2.py

jets: $(VENV)/.installed  ## N top and N QCD jets in build/jets-N (OUT=folder): train, val, test, manifest, page of plots (SEED=n for others)
	$(BIN)/python -m quantize jets --jets $(N) --out $(or $(OUT),build/jets-$(N)) $(if $(SEED),--seed $(SEED)) $(ARGS)

evaluate-demo: $(VENV)/.installed  ## AUC of the demo's network on jets it never saw (EVALUATION_JETS a class)
	$(BIN)/python -m quantize jets --seed 7100 --jets $(EVALUATION_JETS) --split 0 0 1 --out build/evaluation-jets-$(EVALUATION_JETS)
	$(BIN)/python -m quantize evaluate --jets build/evaluation-jets-$(EVALUATION_JETS)/test.h5

physics: $(VENV)/.torch  ## The paper's Table 1 and Fig. 4 for the stages in WORKSHOP (build/demo-net), and boosted trees (ARGS="--rtl 20")
	$(BIN)/python benchmarks/physics.py $(if $(WORKSHOP),--workshop $(WORKSHOP)) $(ARGS)

neutrinos: $(VENV)/.installed  ## Transfer learning on toy neutrino events: the demo's featurizer, a new classifier of five classes
	$(BIN)/python examples/neutrinos.py $(ARGS)

train-demo: $(VENV)/.installed  ## Make the demo's network again, from jets to quantize/trained/demo.npz (hours)
	$(BIN)/python -m quantize demo-net --out build/demo-net --install

# Narrow on small images, narrow on large ones, then the full network: each step goes on where it stopped, and has a time limit. On a
# GPU, or another day: the same command with more minutes.
RESNET50 := build/resnet50-net
MINUTES  ?= 13 38 6 3
GROW      = $(BIN)/python -m quantize $(1) --framework torch --jets $(RESNET50)/jets --float-epochs $(or $(EPOCHS),1) --minutes $(word $(2),$(MINUTES))
FULL      = --out $(RESNET50) --width 64 --size 224 --float-rate 1e-5 --finetune-rate 5e-7 --batch 16 --seed 13 \
	--validation-jets 200 --calibration-jets 64 --classifier-jets 600 --classifier-epochs 100 --test-jets 1000

train-resnet50: $(VENV)/.torch  ## Train the full ResNet-50 at 224x224 in PyTorch, grown from a narrow one (MINUTES="13 38 6 3" of its four steps)
	test -e $(RESNET50)/jets/train.h5 || $(BIN)/python -m quantize jets --jets 150000 --out $(RESNET50)/jets
	test -f build/demo-net/float.npz || $(BIN)/python -m quantize train --out build/demo-net --jets $(RESNET50)/jets
	$(call GROW,train,1) --start build/demo-net/float.npz --out $(RESNET50)/w16-128 --width 16 --size 128 --float-rate 1e-3 --batch 64 --seed 11
	$(call GROW,train,2) --start $(RESNET50)/w16-128/float.npz --out $(RESNET50)/w16-224 --width 16 --size 224 --float-rate 7e-4 --batch 32 \
	  --seed 12 --validation-jets 1000
	$(call GROW,train,3) --start $(RESNET50)/w16-224/float.npz --batch-norm no --noise 0.02 $(FULL)
	$(call GROW,calibrate,3) $(FULL)
	$(call GROW,finetune,4) $(FULL) --teacher
	$(call GROW,refit,4) $(FULL)
	@echo "The network is $(RESNET50)/network.npz; MODEL=$(RESNET50)/network.npz makes it the one to package"

selftest: $(VENV)/.installed  ## Find out whether a device works, and if not, what is broken (DEVICE=simulated-board, PROGRAM=net.npu)
	$(BIN)/python -m driver selftest --device $(or $(DEVICE),simulated-board) $(if $(PROGRAM),--program $(PROGRAM)) $(ARGS)

board-soak: $(VENV)/.installed  ## 1,000 images through pynq on the simulated board, with random faults (15 minutes; SEED=n repeats)
	$(BIN)/python -m hls compile --checkpoint quantize/trained/demo.npz --board sim-small --out build/demo.npu
	$(BIN)/python benchmarks/board_soak.py build/demo.npu $(if $(SEED),--seed $(SEED)) $(ARGS)

bench-driver: $(VENV)/.installed  ## CPU time that the driver takes for an image, with an NPU that answers at once
	$(BIN)/python -m hls compile --checkpoint quantize/trained/demo.npz --board sim-small --out build/demo.npu
	$(BIN)/python benchmarks/driver_overhead.py build/demo.npu

package: $(VENV)/.installed  ## One archive to install on BOARD, with MODEL (demo, or a trained network's .npz)
	@test -n "$(BOARD)" || { echo "Which board? make package BOARD=zcu104 (kv260, ultra96v2, pynq-z2, u250)"; exit 1; }
	$(BIN)/python -m hls compile --checkpoint $(CHECKPOINT) --board $(BOARD) --out build/package/$(BOARD)/$(NAME).npu
	$(BIN)/python -m driver.deploy package --board $(BOARD) --classifier $(CHECKPOINT) \
	  --program build/package/$(BOARD)/$(NAME).npu $(ARGS)

synth: $(VENV)/.installed  ## The bitstream of BOARD with its reports (without BOARD: an ECP5, with open tools only)
	$(BIN)/python -m hw synth $(if $(BOARD),--board $(BOARD)) $(ARGS)

pipeline: $(VENV)/.installed  ## Logic levels between the NPU's registers on UltraScale+; writes docs/pipeline.md
	$(BIN)/python -m hw pipeline

area: $(VENV)/.installed  ## What each block takes of BOARD's FPGA, against the committed figures (ARGS=--update: makes them again)
	$(BIN)/python -m hw area $(if $(BOARD),--board $(BOARD)) $(ARGS)

# ---------------------------------------------------------------------------------------------------------------------
# What a developer runs
# ---------------------------------------------------------------------------------------------------------------------

test: lint $(VENV)/.torch  ## All tests: lint, Python, cocotb benches
	@command -v tclsh >/dev/null || { echo "The Vivado scripts are tested in tclsh. On Debian 12: apt-get install tcl"; exit 1; }
	@command -v haproxy >/dev/null || { echo "Several services are tested behind HAProxy. On Debian 12: apt-get install haproxy"; exit 1; }
	@test -e /usr/include/grpcpp/grpcpp.h || { \
	  echo "The service is tested on gRPC's C++ library too. On Debian 12: apt-get install libgrpc++-dev"; exit 1; }
	$(BIN)/python -m pytest -m alone
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 1 -m "not alone"

sim: $(VENV)/.installed  ## The cocotb benches of the RTL alone
	$(BIN)/python -m pytest sim

formal: $(VENV)/.installed  ## Prove what docs/formal.md claims of the RTL, and find the seeded bugs (PROOF=sync_fifo for one)
	$(BIN)/python -m hw formal $(PROOF)

waves: $(VENV)/.installed  ## Record a bench's waveform and open it (TEST=sync_fifo, and ONLY=words_come_out for a cocotb test of it)
	$(BIN)/python -m sim waves '$(TEST)' $(if $(ONLY),--only '$(ONLY)')

registers: $(VENV)/.installed  ## Make again what comes from hw/regs/npu.rdl; pages to browse in build/registers
	$(BIN)/python -m hw registers --html build/registers

lint: $(VENV)/.installed  ## ruff, mypy, Verilator -Wall, Verible
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m sim lint

format: $(VENV)/.installed  ## Format the Python and SystemVerilog sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m sim format

build-npu: $(VENV)/.installed  ## Build the Verilated NPU (CONFIG=sim-small)
	$(BIN)/python -m sim build --config $(CONFIG)

clean:  ## Remove everything that was built (not the virtual environment)
	rm -rf build *.egg-info
