// Compiles what applications include. It fails if a header of gRPC or protobuf is included, too.

#include "seriatim/client.h"

#if defined(GOOGLE_PROTOBUF_VERSION) || defined(GPR_SUPPORT_PORT_PLATFORM_H) || defined(GRPC_GRPC_H) || \
    defined(GRPCPP_CHANNEL_H)
#error "seriatim/client.h includes headers of gRPC or protobuf"
#endif

static_assert(!std::is_copy_constructible_v<seriatim::Client> &&
              std::is_nothrow_move_constructible_v<seriatim::Client>);
static_assert(!std::is_copy_constructible_v<seriatim::Producer> &&
              std::is_nothrow_move_assignable_v<seriatim::Producer>);
static_assert(!std::is_copy_constructible_v<seriatim::Consumer> &&
              std::is_nothrow_move_assignable_v<seriatim::Consumer>);
static_assert(std::is_nothrow_copy_constructible_v<seriatim::Error>);
