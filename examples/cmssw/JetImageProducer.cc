// CMSSW: sends the constituents of the event's leading AK8 jet to Quarkwave's constituents_tagger and puts P(top) into the event.
// The service makes the image, bit for bit the one that the network was trained on. Not compiled here: it needs CMSSW.

#include <algorithm>
#include <memory>
#include <vector>

#include "DataFormats/PatCandidates/interface/Jet.h"
#include "FWCore/Framework/interface/Event.h"
#include "FWCore/Framework/interface/MakerMacros.h"
#include "FWCore/ParameterSet/interface/ParameterSet.h"
#include "FWCore/ParameterSet/interface/ParameterSetDescription.h"
#include "HeterogeneousCore/SonicTriton/interface/TritonData.h"
#include "HeterogeneousCore/SonicTriton/interface/TritonEDProducer.h"

class JetImageProducer : public TritonEDProducer<> {
public:
  explicit JetImageProducer(edm::ParameterSet const& cfg)
      : TritonEDProducer<>(cfg), jets_(consumes<std::vector<pat::Jet>>(cfg.getParameter<edm::InputTag>("src"))) {
    produces<float>("probTop");
  }

  // Returns at once; the framework runs other modules until the answer has come.
  void acquire(edm::Event const& event, edm::EventSetup const&, Input& input) override {
    auto const& jets = event.get(jets_);
    if (jets.empty()) {
      client_->setBatchSize(0);  // nothing is sent
      return;
    }
    client_->setBatchSize(1);

    std::vector<reco::Candidate const*> particles;
    for (auto const& daughter : jets.front().daughterPtrVector())
      particles.push_back(daughter.get());
    std::sort(particles.begin(), particles.end(), [](auto a, auto b) { return a->pt() > b->pt(); });
    particles.resize(std::min(particles.size(), kMostParticles));

    auto values = std::make_shared<TritonInput<float>>(1);
    for (auto const* particle : particles)
      for (double value : {particle->energy(), particle->px(), particle->py(), particle->pz()})
        values->front().push_back(value);
    auto& constituents = input.at("constituents");
    constituents.setShape(0, particles.size());
    constituents.toServer(values);
  }

  void produce(edm::Event& event, edm::EventSetup const&, Output const& output) override {
    float top = -1;  // no jet
    if (client_->batchSize() > 0)
      top = output.at("probabilities").fromServer<float>()[0][1];  // [P(QCD), P(top)]
    event.put(std::make_unique<float>(top), "probTop");
  }

  static void fillDescriptions(edm::ConfigurationDescriptions& descriptions) {
    edm::ParameterSetDescription desc;
    TritonClient::fillPSetDescription(desc);
    desc.add<edm::InputTag>("src", edm::InputTag("slimmedJetsAK8"));
    descriptions.addWithDefaultLabel(desc);
  }

private:
  static constexpr std::size_t kMostParticles = 200;
  edm::EDGetTokenT<std::vector<pat::Jet>> const jets_;
};

DEFINE_FWK_MODULE(JetImageProducer);
