// A node in this process that accepts everything, for tests of lifetimes and threads. clients/conformance has nodes
// that fail.
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "seriatim/v1/log_service.grpc.pb.h"

class FakeNode final : public seriatim::v1::LogService::Service {
 public:
  FakeNode() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    builder.SetMaxReceiveMessageSize(16 << 20);
    server_ = builder.BuildAndStart();
    addr_ = "127.0.0.1:" + std::to_string(port);
  }
  ~FakeNode() override {
    hold(false);
    server_->Shutdown(std::chrono::system_clock::now());
  }

  const std::string& addr() const { return addr_; }

  /// Whether answers to records wait.
  void hold(bool holds) {
    std::lock_guard lock(mutex_);
    holds_ = holds;
    changed_.notify_all();
  }

  /// Waits until that many records were received.
  void await_received(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return received_ >= count; });
  }

  /// The offset of the first record. Set it before the first use.
  std::uint64_t first_offset = 0;
  /// The size of each record that a consumer reads, without an end.
  std::size_t consumed_bytes = 100;
  /// How many records were sent to consumers.
  std::atomic<std::size_t> sent{0};

 private:
  using Context = grpc::ServerContext;

  grpc::Status GetServers(Context*, const seriatim::v1::GetServersRequest* request,
                          seriatim::v1::GetServersResponse* response) override {
    response->set_cluster_id("c");
    auto* server = response->add_servers();
    server->set_rpc_addr(addr_);
    server->set_is_leader(!request->log().empty());
    return grpc::Status::OK;
  }

  grpc::Status InitProducer(Context*, const seriatim::v1::InitProducerRequest*,
                            seriatim::v1::InitProducerResponse* response) override {
    response->mutable_producer()->set_producer_id(1);
    response->mutable_producer()->set_epoch(1);
    response->mutable_producer()->set_log_id("id");
    return grpc::Status::OK;
  }

  grpc::Status GetLog(Context*, const seriatim::v1::GetLogRequest*, seriatim::v1::GetLogResponse* response) override {
    response->mutable_log()->mutable_config()->set_max_record_bytes(1 << 20);
    response->mutable_log()->mutable_config()->set_max_request_bytes(4 << 20);
    return grpc::Status::OK;
  }

  grpc::Status AcquireCursor(Context*, const seriatim::v1::AcquireCursorRequest* request,
                             seriatim::v1::AcquireCursorResponse* response) override {
    response->mutable_cursor()->set_cursor(request->cursor());
    response->mutable_cursor()->set_log_id("id");
    response->mutable_cursor()->set_next_offset(first_offset);
    response->mutable_cursor()->set_epoch(1);
    return grpc::Status::OK;
  }

  grpc::Status CommitCursor(Context*, const seriatim::v1::CommitCursorRequest* request,
                            seriatim::v1::CommitCursorResponse*) override {
    std::lock_guard lock(mutex_);
    if (request->next_offset() < committed_) return {grpc::StatusCode::FAILED_PRECONDITION, "the cursor moves back"};
    committed_ = request->next_offset();
    return grpc::Status::OK;
  }

  grpc::Status ProduceStream(
      Context* context,
      grpc::ServerReaderWriter<seriatim::v1::ProduceResponse, seriatim::v1::ProduceRequest>* stream) override {
    seriatim::v1::ProduceRequest request;
    while (stream->Read(&request)) {
      seriatim::v1::ProduceResponse response;
      {
        std::unique_lock lock(mutex_);
        response.set_offset(first_offset + received_);
        received_ += static_cast<std::size_t>(request.records_size());
        changed_.notify_all();
        while (holds_ && !context->IsCancelled()) changed_.wait_for(lock, std::chrono::milliseconds(10));
      }
      response.set_count(static_cast<std::uint32_t>(request.records_size()));
      if (!stream->Write(response)) break;
    }
    return grpc::Status::OK;
  }

  grpc::Status ConsumeStream(Context*, const seriatim::v1::ConsumeRequest* request,
                             grpc::ServerWriter<seriatim::v1::ConsumeResponse>* writer) override {
    auto offset = request->start() == seriatim::v1::START_OFFSET ? request->offset() : first_offset;
    seriatim::v1::ConsumeResponse response;
    do {
      response.Clear();
      response.set_log_id("id");
      for (int i = 0; i < 100; ++i) {
        auto* record = response.add_records();
        record->set_offset(offset++);
        record->set_value(std::string(consumed_bytes, 'v'));
      }
      response.set_resume_offset(offset);
      sent += 100;
    } while (writer->Write(response));
    return grpc::Status::OK;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool holds_ = false;
  std::size_t received_ = 0;
  std::uint64_t committed_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::string addr_;
};
