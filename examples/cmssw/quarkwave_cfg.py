"""CMSSW: tag jets on the FPGA with the unmodified SonicTriton client (cmsRun quarkwave_cfg.py server=fpga.example.org).

It reaches our service as it reaches a Triton server. `JetImageProducer` stands beside this file. Not run here: it needs CMSSW.
"""

import FWCore.ParameterSet.Config as cms  # noqa: N813 - the name that every CMSSW configuration uses
from Configuration.ProcessModifiers.enableSonicTriton_cff import enableSonicTriton
from FWCore.ParameterSet.VarParsing import VarParsing

options = VarParsing("analysis")
options.register("server", "localhost", VarParsing.multiplicity.singleton, VarParsing.varType.string)
options.register("port", 8001, VarParsing.multiplicity.singleton, VarParsing.varType.int)
options.register("useSsl", False, VarParsing.multiplicity.singleton, VarParsing.varType.bool)
options.parseArguments()

process = cms.Process("Quarkwave", enableSonicTriton)
process.source = cms.Source("PoolSource", fileNames=cms.untracked.vstring(options.inputFiles))
process.maxEvents.input = options.maxEvents
process.options.numberOfThreads = 4
process.options.numberOfStreams = 4  # events under way while others wait for the FPGA

process.load("HeterogeneousCore.SonicTriton.TritonService_cff")
process.TritonService.servers.append(
    cms.PSet(
        name=cms.untracked.string("quarkwave"),
        address=cms.untracked.string(options.server),
        port=cms.untracked.uint32(options.port),
        useSsl=cms.untracked.bool(options.useSsl),
    )
)
process.TritonService.fallback.enable = False  # a stock Triton on this machine cannot run the NPU's program

process.jetTagger = cms.EDProducer(
    "JetImageProducer",
    src=cms.InputTag("slimmedJetsAK8"),
    Client=cms.PSet(
        mode=cms.string(
            "Async"
        ),  # ExternalWork: acquire() sends, the thread does other work, produce() takes the answer
        preferredServer=cms.untracked.string("quarkwave"),
        modelName=cms.string("constituents_tagger"),
        modelVersion=cms.string(""),
        # What the client checks its own view of the model against; `python -m host_service` needs no such file.
        modelConfigPath=cms.FileInPath("Quarkwave/Tagger/data/constituents_tagger/config.pbtxt"),
        outputs=cms.untracked.vstring("probabilities"),
        allowedTries=cms.untracked.uint32(5),
        timeout=cms.untracked.uint32(30),
        timeoutUnit=cms.untracked.string("seconds"),
        compression=cms.untracked.string(""),
        useSharedMemory=cms.untracked.bool(False),
        verbose=cms.untracked.bool(False),
    ),
)
process.path = cms.Path(process.jetTagger)
