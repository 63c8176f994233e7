// A gRPC server for a caller that wants whole messages and no threads: HTTP/2, TLS, compression, flow control and deadlines are
// gRPC's C++ library's, driven by one thread here; whoever calls take() finds what has happened since, in batches.
//
// A message stays in the pieces in which the network brought it. The caller takes copies of what it wants, or has values quantised straight
// from the pieces: a tensor of FP32 is as long as all the rest, and every copy of it costs as much as its arithmetic.
//
// What it does not do: it knows no method and no type of message, and takes no lock of the caller's language. grpcpp.py is its only user;
// every function below is called from one thread of it, but for those that wait at the end.
//
// A call lives until gRPC is through with it and the caller has let go of it; references count both.

#include <grpcpp/alarm.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/eventfd.h>
#include <unistd.h>

namespace {

using grpc::ByteBuffer;
using grpc::Slice;
using grpc::Status;

enum Kind : int64_t {
  kCall = 0,       // a call has come, with its first message
  kMessage = 1,    // what next() asked for has come
  kWritten = 2,    // what write() had is on its way
  kCancelled = 3,  // the client left, its deadline is over, or the server stopped: nobody waits for an answer
};

struct Call;

// A message where the network left it, and for as long as the caller wants.
using Message = std::vector<Slice>;

// Each has a reference to its call, which the caller gives back with release(), and owns its message.
struct Event {
  Call* call;
  int64_t kind;
  Message* message;  // null: the client sends no (more) messages, or the call is over
  int64_t size;      // bytes of the message
  double left;       // of kCall: seconds until the client stops waiting, a huge number when it never does
};

// The message that ends a call.
struct Answer {
  Call* call;
  ByteBuffer message;
};

// Calls that may arrive before the thread has come round to them.
constexpr int kAccepting = 64;

struct Server {
  grpc::AsyncGenericService service;
  grpc::ServerBuilder builder;
  std::unique_ptr<grpc::ServerCompletionQueue> queue;
  std::unique_ptr<grpc::Server> server;
  std::thread thread;
  int signal = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  std::mutex mutex;
  std::vector<Event> events;    // that take() has not taken; the signal is set while there are any
  std::vector<Answer> answers;  // that send() has not sent
  bool sending = false;         // whether the thread is on to them, or the alarm will tell it to be
  std::condition_variable sent;
  grpc::Alarm alarm;  // wakes the thread

  ~Server() { close(signal); }

  void report(Call* call, Kind kind, Message* message = nullptr);
  void accept();
  void work();
  void send();
};

// What gRPC gives back when an operation of a call is done.
struct Tag {
  enum Operation { kArrived, kRead, kWrote, kFinished, kOver } operation;
  Call* call;
};

struct Call {
  explicit Call(Server* server) : server(server) { context.AsyncNotifyWhenDone(&over); }

  Server* server;
  grpc::GenericServerContext context;
  grpc::GenericServerAsyncReaderWriter stream{&context};
  ByteBuffer message;
  Tag arrived{Tag::kArrived, this}, read{Tag::kRead, this}, wrote{Tag::kWrote, this}, finished{Tag::kFinished, this},
      over{Tag::kOver, this};
  std::atomic<int> references{1};
  // Of the server's thread alone:
  bool known = false;  // to the caller
  bool cancelled = false;

  void drop() {
    if (--references == 0) {
      delete this;
    }
  }

  // The message that has come; null when it cannot be read (it is not compressed as it says).
  Message* taken() {
    auto pieces = std::make_unique<Message>();
    const bool readable = message.Dump(pieces.get()).ok();
    message.Clear();
    return readable ? pieces.release() : nullptr;
  }

  double seconds_left() const {
    return std::chrono::duration<double>(context.deadline() - std::chrono::system_clock::now()).count();
  }

  void read_next() {
    ++references;
    stream.Read(&message, &read);
  }

  void done(Tag::Operation operation, bool ok) {
    switch (operation) {
      case Tag::kArrived:
        if (ok) {
          ++references;  // of `over`, which comes for calls that arrived only
          server->accept();
          read_next();
        }
        break;
      case Tag::kRead:
        if (known || !cancelled) {  // otherwise the caller never heard of it, and need not
          server->report(this, known ? kMessage : kCall, ok ? taken() : nullptr);
          known = true;
        }
        break;
      case Tag::kWrote:
        server->report(this, kWritten);
        break;
      case Tag::kOver:
        cancelled = context.IsCancelled();
        if (known && cancelled) {
          server->report(this, kCancelled);
        }
        break;
      case Tag::kFinished:
        break;
    }
    drop();
  }
};

void Server::report(Call* call, Kind kind, Message* message) {
  ++call->references;
  Event event{call, kind, message, 0, kind == kCall ? call->seconds_left() : 0};
  if (message != nullptr) {
    for (const Slice& piece : *message) {
      event.size += static_cast<int64_t>(piece.size());
    }
  }
  bool first;
  {
    std::lock_guard<std::mutex> lock(mutex);
    first = events.empty();
    events.push_back(event);
  }
  if (first) {
    eventfd_write(signal, 1);
  }
}

void Server::accept() {
  Call* call = new Call(this);
  service.RequestCall(&call->context, &call->stream, queue.get(), queue.get(), &call->arrived);
}

void Server::work() {
  void* tag;
  bool ok;
  while (queue->Next(&tag, &ok)) {
    if (tag == this) {
      send();
      continue;
    }
    Tag* done = static_cast<Tag*>(tag);
    done->call->done(done->operation, ok);
  }
}

void Server::send() {
  std::vector<Answer> ready;
  std::unique_lock<std::mutex> lock(mutex);
  while (!answers.empty()) {
    ready.clear();
    ready.swap(answers);
    lock.unlock();
    for (Answer& answer : ready) {
      answer.call->stream.WriteAndFinish(answer.message, grpc::WriteOptions(), Status::OK, &answer.call->finished);
    }
    lock.lock();
  }
  sending = false;
  sent.notify_all();
}

// Reads bytes that lie in pieces.
class Reader {
 public:
  explicit Reader(const Message& pieces) : pieces_(pieces) { settle(); }

  bool at_end() const { return piece_ == pieces_.size(); }
  size_t position() const { return before_ + at_; }

  // What is left of the piece; empty at the end.
  std::pair<const char*, size_t> piece() const {
    if (at_end()) {
      return {nullptr, 0};
    }
    return {reinterpret_cast<const char*>(pieces_[piece_].begin()) + at_, pieces_[piece_].size() - at_};
  }

  bool skip(size_t size) { return copy(nullptr, size); }

  // The next `size` bytes to `to`, unless that is null. Returns whether there are as many.
  bool copy(char* to, size_t size) {
    while (size > 0) {
      auto [data, left] = piece();
      if (left == 0) {
        return false;
      }
      const size_t part = std::min(size, left);
      if (to != nullptr) {
        std::memcpy(to, data, part);
        to += part;
      }
      at_ += part;
      size -= part;
      settle();
    }
    return true;
  }

  // Back to a position that was passed.
  void rewind(size_t position) {
    while (position < before_) {
      before_ -= pieces_[--piece_].size();
    }
    at_ = position - before_;
    settle();
  }

  // A protobuf's number of at most ten bytes. Returns whether there is one.
  bool varint(uint64_t* value) {
    for (int shift = 0; shift < 70; shift += 7) {
      auto [data, left] = piece();
      if (left == 0) {
        return false;
      }
      const uint64_t byte = static_cast<uint8_t>(*data);
      *value |= (byte & 0x7f) << shift;
      skip(1);
      if (byte < 0x80) {
        return true;
      }
    }
    return false;
  }

 private:
  // On to a piece that has something left.
  void settle() {
    while (!at_end() && at_ == pieces_[piece_].size()) {
      before_ += at_;
      at_ = 0;
      ++piece_;
    }
  }

  const Message& pieces_;
  size_t piece_ = 0, at_ = 0, before_ = 0;  // the piece, where in it, bytes of those before it
};

// `count` float32 values that stand anywhere; see qw_quantise(). Returns whether all are finite. Written so that compilers vectorise it.
bool quantise(const char* from, size_t count, float highest, float offset, uint8_t* to) {
  uint32_t strange = 0;
  for (size_t i = 0; i < count; ++i) {
    float value;
    uint32_t bits;
    std::memcpy(&value, from + sizeof value * i, sizeof value);
    std::memcpy(&bits, &value, sizeof bits);
    strange |= (bits & 0x7f800000u) == 0x7f800000u;
    value = value > 0.0f ? value : 0.0f;
    value = (value < highest ? value : highest) + offset;
    std::memcpy(&bits, &value, sizeof bits);
    to[i] = static_cast<uint8_t>(bits);
  }
  return strange == 0;
}

ByteBuffer buffer_of(const char* data, size_t size) {
  Slice slice(data, size);
  return ByteBuffer(&slice, 1);
}

std::string text_of(const char* text) { return text == nullptr ? std::string() : std::string(text); }

}  // namespace

extern "C" {

// A server that listens at no address yet. Messages of more than `message_bytes` are refused.
Server* qw_server(int message_bytes) {
  auto* server = new Server;
  server->builder.SetMaxReceiveMessageSize(message_bytes);
  server->builder.SetMaxSendMessageSize(-1);
  server->builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  server->builder.RegisterAsyncGenericService(&server->service);
  return server;
}

// Serve at `address`, with TLS when there is a certificate, and then from clients with one of `client_ca` only when there is one.
// Returns the port, 0 when that cannot be had.
int qw_start(Server* server, const char* address, const char* key, const char* certificate, const char* client_ca) {
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (certificate != nullptr) {
    grpc::SslServerCredentialsOptions options(client_ca == nullptr
                                                  ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                                  : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    options.pem_key_cert_pairs.push_back({text_of(key), text_of(certificate)});
    options.pem_root_certs = text_of(client_ca);
    credentials = grpc::SslServerCredentials(options);
  }
  int port = 0;
  server->builder.AddListeningPort(address, credentials, &port);
  server->queue = server->builder.AddCompletionQueue();
  server->server = server->builder.BuildAndStart();
  if (server->server == nullptr || port == 0) {
    return 0;
  }
  for (int i = 0; i < kAccepting; ++i) {
    server->accept();
  }
  server->thread = std::thread(&Server::work, server);
  return port;
}

// File descriptor that is readable while there are events.
int qw_signal(Server* server) { return server->signal; }

// The events since the last time, at most `count`; returns how many.
size_t qw_take(Server* server, Event* events, size_t count) {
  std::lock_guard<std::mutex> lock(server->mutex);
  count = std::min(count, server->events.size());
  std::copy_n(server->events.begin(), count, events);
  server->events.erase(server->events.begin(), server->events.begin() + count);
  if (server->events.empty()) {
    eventfd_t ignored;
    eventfd_read(server->signal, &ignored);
  }
  return count;
}

// No further calls; those that run have `grace` seconds, then they are cancelled. Returns when the network is through with all of them.
void qw_stop(Server* server, double grace) {
  using std::chrono::duration;
  using std::chrono::system_clock;
  if (server->server != nullptr) {
    const auto left = std::chrono::duration_cast<system_clock::duration>(duration<double>(grace));
    server->server->Shutdown(system_clock::now() + left);
  }
}

// After qw_stop(), when the caller has ended every call: returns when the last event is there to be taken.
void qw_finish_events(Server* server) {
  {
    std::unique_lock<std::mutex> lock(server->mutex);
    server->sent.wait(lock, [server] { return !server->sending; });
  }
  if (server->queue != nullptr) {
    server->queue->Shutdown();
    if (!server->thread.joinable()) {  // it did not come to listening
      server->work();
    }
  }
  if (server->thread.joinable()) {
    server->thread.join();
  }
}

// After qw_finish_events(), when every call was released.
void qw_free(Server* server) { delete server; }

// The full name of the method: "/package.Service/Method". Until the call is released.
const char* qw_method(Call* call) { return call->context.method().c_str(); }

// The headers that the client sent, but for binary ones, as "key\0value\0" one after another. Returns how long they are; writes nothing
// when that is more than `size`.
size_t qw_headers(Call* call, char* to, size_t size) {
  std::string text;
  for (const auto& [key, value] : call->context.client_metadata()) {
    if (!key.ends_with("-bin")) {
      text.append(key.data(), key.size()).append(1, 0).append(value.data(), value.size()).append(1, 0);
    }
  }
  if (text.size() <= size) {
    std::copy(text.begin(), text.end(), to);
  }
  return text.size();
}

// The caller has no more use for a message.
void qw_message_free(Message* message) { delete message; }

// Copy `size` bytes from `begin` of a message to `to`. Returns whether it is as long.
int qw_copy(Message* message, size_t begin, char* to, size_t size) {
  Reader reader(*message);
  return reader.skip(begin) && reader.copy(to, size);
}

// Take a message, a protobuf, apart: of fields whose numbers are bits of `apart`, and which hold bytes, `spans` says where they are
// (number, begin of the tag, begin of the contents, length); the others are copied to `head`. Returns the number of spans and the head's
// length, or -1 when the message is damaged, or there is more than fits.
int qw_split(Message* message, uint32_t apart, char* head, size_t* head_size, int64_t (*spans)[4], int most) {
  Reader reader(*message);
  char* to = head;
  int count = 0;
  while (!reader.at_end()) {
    const size_t begin = reader.position();
    uint64_t tag = 0, length = 0;
    if (!reader.varint(&tag)) {
      return -1;
    }
    const uint64_t kind = tag & 7, number = tag >> 3;
    const bool has_length = kind == 2;
    if (kind == 0 || has_length) {
      if (!reader.varint(&length)) {
        return -1;
      }
    } else if (kind == 1 || kind == 5) {
      length = kind == 1 ? 8 : 4;
    } else {
      return -1;  // a group
    }
    const size_t contents = reader.position();
    if (kind == 0) {
      length = 0;
    }
    if (has_length && number < 32 && (apart >> number & 1) != 0) {
      if (count == most || !reader.skip(length)) {
        return -1;
      }
      const int64_t span[] = {static_cast<int64_t>(number), static_cast<int64_t>(begin), static_cast<int64_t>(contents),
                              static_cast<int64_t>(length)};
      std::copy(std::begin(span), std::end(span), spans[count++]);
      continue;
    }
    const size_t room = *head_size - (to - head), size = reader.position() - begin;
    if (size > room || length > room - size) {
      return -1;
    }
    reader.rewind(begin);
    if (!reader.copy(to, size + length)) {
      return -1;
    }
    to += size + length;
  }
  *head_size = to - head;
  return count;
}

// `count` float32 values from `begin` of the message, as uint8 at `to`: clipped to 0..`highest`, then the last byte of the sum with `offset`.
// Returns 0 when one of them is a NaN or an infinity, -1 when the message is too short.
int qw_quantise(Message* message, size_t begin, size_t count, float highest, float offset, uint8_t* to) {
  Reader reader(*message);
  if (!reader.skip(begin)) {
    return -1;
  }
  bool finite = true;
  while (count > 0) {
    auto [data, size] = reader.piece();
    const size_t whole = std::min(count, size / sizeof(float));
    if (whole > 0) {
      finite &= quantise(data, whole, highest, offset, to);
      reader.skip(whole * sizeof(float));
      to += whole;
      count -= whole;
    } else {  // it begins in this piece and ends in another
      char value[sizeof(float)];
      if (!reader.copy(value, sizeof value)) {
        return -1;
      }
      finite &= quantise(value, 1, highest, offset, to);
      ++to;
      --count;
    }
  }
  return finite ? 1 : 0;
}

// Ask for the next message.
void qw_next(Call* call) { call->read_next(); }

// Send a message of several. The next one, or the end, when it is reported as written.
void qw_write(Call* call, const char* data, size_t size) {
  ++call->references;
  call->stream.Write(buffer_of(data, size), &call->wrote);
}

// A header for the client that follows the answer.
void qw_trailer(Call* call, const char* key, const char* value) { call->context.AddTrailingMetadata(key, value); }

// End the call with one message, when qw_send() says so, and give back the reference of its event.
void qw_answer(Call* call, const char* data, size_t size) {
  std::lock_guard<std::mutex> lock(call->server->mutex);
  call->server->answers.push_back({call, buffer_of(data, size)});
}

// Send the answers. The server's thread does it: whoever else sends one has to wake that thread for every single one, to be told that it is
// on its way.
void qw_send(Server* server) {
  bool wake;
  {
    std::lock_guard<std::mutex> lock(server->mutex);
    wake = !server->answers.empty() && !server->sending;
    server->sending = server->sending || wake;
  }
  if (wake) {
    // A time that is over: for one to come, and be it now, gRPC has a thread of timers wait.
    server->alarm.Set(server->queue.get(), gpr_inf_past(GPR_CLOCK_REALTIME), server);
  }
}

// End the call with `code` and `text`, without another message.
void qw_finish(Call* call, int code, const char* text) {
  ++call->references;
  call->stream.Finish(Status(static_cast<grpc::StatusCode>(code), text_of(text)), &call->finished);
}

// Give back the reference of an event.
void qw_release(Call* call) { call->drop(); }

}  // extern "C"
