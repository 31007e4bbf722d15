# Libraries by pkg-config, each with a least version; a missing one is named with its Debian package.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

# muster_package(NAME MODULE LEAST DEBIAN): imported target pkg::NAME.
function(muster_package name module least debian)
    pkg_check_modules(PKG_${name} QUIET IMPORTED_TARGET GLOBAL "${module}>=${least}")
    if(NOT PKG_${name}_FOUND)
        message(FATAL_ERROR "${module} >= ${least} is missing. Install it: apt-get install ${debian}\n"
                            "(deploy/quickstart.sh --deps installs everything that is needed)")
    endif()
    add_library(pkg::${name} ALIAS PkgConfig::PKG_${name})
endfunction()

muster_package(uv libuv 1.44.0 libuv1-dev)
muster_package(protobuf_c libprotobuf-c 1.4.1 libprotobuf-c-dev)
muster_package(sqlite sqlite3 3.40.0 libsqlite3-dev)
muster_package(microhttpd libmicrohttpd 0.9.75 libmicrohttpd-dev)
muster_package(jansson jansson 2.14 libjansson-dev)
muster_package(xxhash libxxhash 0.8.1 libxxhash-dev)
muster_package(zlib zlib 1.2.11 zlib1g-dev)
muster_package(curl libcurl 7.80 libcurl4-openssl-dev)
muster_package(crypto libcrypto 3.0.0 libssl-dev)
muster_package(cmocka cmocka 1.1.5 libcmocka-dev)

find_program(PROTOC_C protoc-c)
if(NOT PROTOC_C)
    message(FATAL_ERROR "protoc-c is missing. Install it: apt-get install protobuf-c-compiler")
endif()

# oneDNN ships no pkg-config file in Debian.
find_path(DNNL_INCLUDE oneapi/dnnl/dnnl.h)
find_library(DNNL_LIBRARY dnnl)
if(NOT DNNL_INCLUDE OR NOT DNNL_LIBRARY)
    message(FATAL_ERROR "oneDNN is missing. Install it: apt-get install libdnnl-dev")
endif()
add_library(pkg_dnnl INTERFACE)
target_include_directories(pkg_dnnl SYSTEM INTERFACE ${DNNL_INCLUDE})
target_link_libraries(pkg_dnnl INTERFACE ${DNNL_LIBRARY})
add_library(pkg::dnnl ALIAS pkg_dnnl)
