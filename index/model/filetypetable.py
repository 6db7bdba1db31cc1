"""The table of file types: one line a type, under the heading of its kind. Data; filetype.py reads and uses it.

A line is: name, media type, marks, extensions, and behind the bar what people call it. An extension may have two parts
(`tar.gz`). `=word` is a whole name, `word~` an extension that another type comes before. Marks, `-` for none:

    !        every such file has one of the type's signatures (filemagic.py): without it, it is something else
    t        text: a file with a NUL byte in its head is something else
    a        not text, but may look like it; others without a mark are something else where the head is text
    <other   such a file is also one of the other type (a docx is a zip), so that signature confirms it

Names are kept in libraries: a name that was released keeps its meaning. Source of the media types: the IANA registry,
and shared-mime-info of freedesktop.org for what is not registered there.
"""

TYPES = """
[unknown]
binary       application/octet-stream                - bin dat dump raw~ | data
empty        inode/x-empty                           -                   | empty file

[image]
jpeg         image/jpeg                              ! jpg jpeg jpe jfif pjpeg pjp mpo | JPEG image
png          image/png                               ! png apng          | PNG image
gif          image/gif                               ! gif               | GIF image
webp         image/webp                              ! webp              | WebP image
tiff         image/tiff                              ! tif tiff          | TIFF image
bmp          image/bmp                               ! bmp dib           | BMP image
ico          image/vnd.microsoft.icon                ! ico               | Windows icon
cur          image/x-win-bitmap                      ! cur               | Windows cursor
heic         image/heic                              ! heic heics hif    | HEIC image
heif         image/heif                              ! heif heifs        | HEIF image
avif         image/avif                              ! avif avifs        | AVIF image
jxl          image/jxl                               ! jxl               | JPEG XL image
jp2          image/jp2                               ! jp2 j2k jpf jpx jpm j2c | JPEG 2000 image
psd          image/vnd.adobe.photoshop               ! psd psb           | Photoshop image
xcf          image/x-xcf                             ! xcf               | GIMP image
svg          image/svg+xml                           t<xml svg           | SVG drawing
svgz         image/svg+xml-compressed                <gzip svgz          | compressed SVG drawing
icns         image/x-icns                            ! icns              | Mac icon
tga          image/x-tga                             - tga icb vda       | TGA image
pcx          image/x-pcx                             - pcx               | PCX image
dds          image/x-dds                             ! dds               | DirectDraw surface
exr          image/x-exr                             ! exr               | OpenEXR image
hdr          image/vnd.radiance                      ! hdr rgbe          | Radiance HDR image
qoi          image/x-qoi                             ! qoi               | QOI image
pnm          image/x-portable-anymap                 a pnm pbm pgm ppm pam | portable bitmap
xbm          image/x-xbitmap                         t xbm               | X bitmap
xpm          image/x-xpixmap                         t xpm               | X pixmap
wmf          image/wmf                               ! wmf               | Windows metafile
emf          image/emf                               a emf               | enhanced metafile
eps          image/x-eps                             a eps epsf epsi     | encapsulated PostScript
dng          image/x-adobe-dng                       <tiff dng           | digital negative
cr2          image/x-canon-cr2                       <tiff cr2           | Canon raw image
cr3          image/x-canon-cr3                       ! cr3               | Canon raw image
crw          image/x-canon-crw                       - crw               | Canon raw image
nef          image/x-nikon-nef                       <tiff nef nrw       | Nikon raw image
arw          image/x-sony-arw                        <tiff arw srf sr2   | Sony raw image
raf          image/x-fuji-raf                        ! raf               | Fujifilm raw image
orf          image/x-olympus-orf                     ! orf               | Olympus raw image
rw2          image/x-panasonic-rw2                   ! rw2               | Panasonic raw image
pef          image/x-pentax-pef                      <tiff pef           | Pentax raw image
djvu         image/vnd.djvu                          ! djvu djv          | DjVu document
fits         image/fits                              ! fits fit fts      | FITS image
drawio       application/vnd.jgraph.mxfile           t<xml drawio        | diagram
kra          application/x-krita                     <zip kra            | Krita image
ai           application/illustrator                 <pdf ai             | Illustrator drawing
cdr          application/vnd.corel-draw              a cdr               | Corel drawing
sketch       application/vnd.sketch                  <zip sketch         | Sketch drawing

[video]
mp4          video/mp4                               ! mp4 m4v mp4v f4v  | MP4 video
mov          video/quicktime                         - mov qt            | QuickTime video
matroska     video/x-matroska                        ! mkv mk3d          | Matroska video
webm         video/webm                              <matroska webm      | WebM video
avi          video/x-msvideo                         ! avi divx          | AVI video
wmv          video/x-ms-wmv                          <asf wmv            | Windows Media video
asf          video/x-ms-asf                          ! asf               | ASF media
flv          video/x-flv                             ! flv               | Flash video
mpeg         video/mpeg                              ! mpg mpeg mpe m2v m1v vob | MPEG video
mpegts       video/mp2t                              ! m2ts m2t mts ts~ trp | MPEG transport stream
3gp          video/3gpp                              ! 3gp 3gpp 3g2      | 3GPP video
ogv          video/ogg                               <ogg ogv            | Ogg video
ogg          application/ogg                         ! ogx               | Ogg media
rm           application/vnd.rn-realmedia            ! rm rmvb           | RealMedia
swf          application/vnd.adobe.flash.movie       - swf               | Flash movie
dv           video/dv                                - dv                | DV video
mxf          application/mxf                         ! mxf               | MXF video
y4m          video/x-yuv4mpeg                        ! y4m               | raw video
ivf          video/x-ivf                             ! ivf               | IVF video
mjpeg        video/x-motion-jpeg                     <jpeg mjpg mjpeg    | motion JPEG

[audio]
mp3          audio/mpeg                              - mp3 mp2 mpga      | MP3 audio
flac         audio/flac                              - flac              | FLAC audio
wav          audio/x-wav                             ! wav wave          | WAV audio
oga          audio/ogg                               <ogg ogg oga spx    | Ogg audio
opus         audio/opus                              <ogg opus           | Opus audio
m4a          audio/mp4                               <mp4 m4a m4b m4p m4r | MPEG-4 audio
aac          audio/aac                               - aac adts          | AAC audio
wma          audio/x-ms-wma                          <asf wma            | Windows Media audio
aiff         audio/x-aiff                            ! aif aiff aifc     | AIFF audio
au           audio/basic                             ! au snd            | Sun audio
ape          audio/x-ape                             ! ape               | Monkey's audio
wavpack      audio/x-wavpack                         ! wv                | WavPack audio
midi         audio/midi                              ! mid midi kar      | MIDI music
amr          audio/amr                               ! amr               | AMR audio
ac3          audio/ac3                               - ac3               | AC-3 audio
dts          audio/vnd.dts                           - dts               | DTS audio
caf          audio/x-caf                             ! caf               | Core Audio
dsf          audio/x-dsf                             ! dsf               | DSD audio
mka          audio/x-matroska                        <matroska mka       | Matroska audio
ra           audio/vnd.rn-realaudio                  - ra                | RealAudio
modmusic     audio/x-mod                             - xm it s3m mod~    | tracker module
m3u          audio/x-mpegurl                         t m3u m3u8          | playlist
pls          audio/x-scpls                           t pls               | playlist
cue          application/x-cue                       t cue               | cue sheet
sf2          audio/x-sf2                             ! sf2               | sound font
gsm          audio/x-gsm                             - gsm               | GSM audio

[document]
pdf          application/pdf                         ! pdf               | PDF document
postscript   application/postscript                  ! ps                | PostScript document
docx         application/vnd.openxmlformats-officedocument.wordprocessingml.document <zip docx docm dotx | Word document
doc          application/msword                      <ole doc dot        | Word document
odt          application/vnd.oasis.opendocument.text <zip odt ott        | OpenDocument text
rtf          text/rtf                                ! rtf               | rich text
pages        application/vnd.apple.pages             <zip pages          | Pages document
ole          application/x-ole-storage               ! ole               | OLE document
ooxml        application/x-ooxml                     <zip                | Office Open XML document
opendocument application/vnd.oasis.opendocument      <zip odg odf odc otg | OpenDocument
wpd          application/vnd.wordperfect             ! wpd               | WordPerfect document
tex          text/x-tex                              t tex ltx sty cls   | TeX source
bibtex       text/x-bibtex                           t bib               | bibliography
dvi          application/x-dvi                       ! dvi               | DVI document
xps          application/oxps                        <zip xps oxps       | XPS document
man          text/troff                              t man roff troff 1 2 3 4 5 6 7 8 me ms | manual page
texinfo      text/x-texinfo                          t texi texinfo      | Texinfo source
lyx          application/x-lyx                       t lyx               | LyX document
chm          application/vnd.ms-htmlhelp             ! chm               | compiled HTML help
hlp          application/winhlp                      a hlp               | Windows help
onenote      application/onenote                     - one               | OneNote notebook
visio        application/vnd.visio                   <ole vsd            | Visio drawing
vsdx         application/vnd.ms-visio.drawing        <zip vsdx           | Visio drawing
publisher    application/vnd.ms-publisher            <ole pub~           | Publisher document
mindmap      application/x-freemind                  t<xml mm~           | mind map

[archive]
zip          application/zip                         ! zip zipx          | zip archive
tar          application/x-tar                       ! tar gtar          | tar archive
gzip         application/gzip                        ! gz                | gzip file
targz        application/x-compressed-tar            <gzip tar.gz tgz    | compressed tar archive
bzip2        application/x-bzip2                     ! bz2               | bzip2 file
tarbz2       application/x-bzip2-compressed-tar      <bzip2 tar.bz2 tbz2 tbz tb2 | compressed tar archive
xz           application/x-xz                        ! xz                | xz file
tarxz        application/x-xz-compressed-tar         <xz tar.xz txz      | compressed tar archive
zstd         application/zstd                        ! zst               | Zstandard file
tarzst       application/x-zstd-compressed-tar       <zstd tar.zst tzst  | compressed tar archive
lzma         application/x-lzma                      - lzma              | LZMA file
tarlzma      application/x-lzma-compressed-tar       - tar.lzma tlz      | compressed tar archive
lz4          application/x-lz4                       ! lz4               | LZ4 file
tarlz4       application/x-lz4-compressed-tar        <lz4 tar.lz4        | compressed tar archive
lzip         application/x-lzip                      ! lz                | lzip file
tarlz        application/x-lzip-compressed-tar       <lzip tar.lz        | compressed tar archive
lzop         application/x-lzop                      ! lzo               | lzop file
compress     application/x-compress                  ! z                 | compress file
tarz         application/x-tarz                      <compress tar.z taz | compressed tar archive
brotli       application/x-brotli                    - br                | Brotli file
7z           application/x-7z-compressed             ! 7z               | 7-zip archive
rar          application/vnd.rar                     ! rar               | RAR archive
cpio         application/x-cpio                      ! cpio              | cpio archive
ar           application/x-archive                   ! ar a              | ar archive
arj          application/x-arj                       - arj               | ARJ archive
lha          application/x-lha                       ! lha lzh           | LHA archive
cab          application/vnd.ms-cab-compressed       ! cab               | cabinet
xar          application/x-xar                       ! xar               | xar archive
iso          application/x-iso9660-image             - iso               | disc image
dmg          application/x-apple-diskimage           - dmg               | Mac disk image
rawdisk      application/x-raw-disk-image            - img               | disk image
vhd          application/x-vhd-disk                  - vhd               | virtual disk
vhdx         application/x-vhdx-disk                 ! vhdx              | virtual disk
vmdk         application/x-vmdk-disk                 - vmdk              | virtual disk
qcow2        application/x-qemu-disk                 ! qcow2 qcow        | virtual disk
vdi          application/x-virtualbox-vdi            - vdi               | virtual disk
squashfs     application/x-squashfs                  ! squashfs sfs      | squashfs image
warc         application/warc                        - warc              | web archive
shar         application/x-shar                      t shar              | shell archive

[code]
python       text/x-python                           t py pyi pyw pyx pxd =sconstruct =sconscript | Python source
javascript   text/javascript                         t js mjs cjs jsx    | JavaScript source
typescript   application/typescript                  t ts tsx cts mts~   | TypeScript source
c            text/x-c                                t c h               | C source
cpp          text/x-c++                              t cc cpp cxx c++ hh hpp hxx h++ inl ipp tcc | C++ source
csharp       text/x-csharp                           t cs csx            | C# source
java         text/x-java                             t java              | Java source
kotlin       text/x-kotlin                           t kt kts            | Kotlin source
scala        text/x-scala                            t scala sc          | Scala source
groovy       text/x-groovy                           t groovy gradle     | Groovy source
go           text/x-go                               t go                | Go source
rust         text/rust                               t rs                | Rust source
swift        text/x-swift                            t swift             | Swift source
objectivec   text/x-objcsrc                          t m mm              | Objective-C source
ruby         text/x-ruby                             t rb rake gemspec =rakefile =gemfile =vagrantfile | Ruby source
perl         text/x-perl                             t pl pm t pod       | Perl source
php          text/x-php                              t php php3 php4 php5 phtml | PHP source
lua          text/x-lua                              t lua               | Lua source
shell        text/x-shellscript                      t sh bash zsh ksh fish ash dash =.bashrc =.profile =.bash_profile =.zshrc | shell script
powershell   application/x-powershell                t ps1 psm1 psd1     | PowerShell script
batch        application/x-bat                       t bat cmd           | batch file
sql          application/sql                         t sql               | SQL
r            text/x-r                                t r rmd             | R source
julia        text/x-julia                            t jl                | Julia source
haskell      text/x-haskell                          t hs lhs            | Haskell source
ocaml        text/x-ocaml                            t ml mli            | OCaml source
erlang       text/x-erlang                           t erl hrl           | Erlang source
elixir       text/x-elixir                           t ex exs            | Elixir source
clojure      text/x-clojure                          t clj cljs cljc edn | Clojure source
lisp         text/x-lisp                             t lisp lsp cl el scm ss rkt | Lisp source
fsharp       text/x-fsharp                           t fs fsx fsi        | F# source
visualbasic  text/x-vb                               t vb vbs bas        | Visual Basic source
pascal       text/x-pascal                           t pas pp dpr        | Pascal source
fortran      text/x-fortran                          t f f90 f95 f03 f08 for ftn | Fortran source
ada          text/x-ada                              t adb ads           | Ada source
d            text/x-d                                t d di              | D source
dart         text/x-dart                             t dart              | Dart source
nim          text/x-nim                              t nim               | Nim source
zig          text/x-zig                              t zig               | Zig source
crystal      text/x-crystal                          t cr                | Crystal source
vala         text/x-vala                             t vala vapi         | Vala source
tcl          text/x-tcl                              t tcl tk            | Tcl script
awk          text/x-awk                              t awk               | awk script
sed          text/x-sed                              t sed               | sed script
asm          text/x-asm                              t s asm nasm        | assembly source
cuda         text/x-cuda                             t cu cuh            | CUDA source
opencl       text/x-opencl                           t opencl            | OpenCL source
glsl         text/x-glsl                             t glsl vert frag geom comp | shader
hlsl         text/x-hlsl                             t hlsl fx           | shader
verilog      text/x-verilog                          t v sv svh          | Verilog source
vhdl         text/x-vhdl                             t vhd~ vhdl         | VHDL source
matlab       text/x-matlab                           t m~                | MATLAB source
vue          text/x-vue                              t vue               | Vue component
svelte       text/x-svelte                           t svelte            | Svelte component
coffee       application/vnd.coffeescript            t coffee            | CoffeeScript source
proto        text/x-protobuf                         t proto             | Protocol Buffers schema
thrift       text/x-thrift                           t thrift            | Thrift schema
graphql      application/graphql                     t graphql gql       | GraphQL
makefile     text/x-makefile                         t mk mak =makefile =gnumakefile =makefile.am =makefile.in | makefile
cmake        text/x-cmake                            t cmake =cmakelists.txt | CMake script
meson        text/x-meson                            t =meson.build =meson_options.txt | Meson build file
bazel        text/x-bazel                            t bzl bazel =build.bazel =workspace | Bazel build file
dockerfile   text/x-dockerfile                       t dockerfile =dockerfile =containerfile | Dockerfile
nix          text/x-nix                              t nix               | Nix expression
terraform    text/x-terraform                        t tf tfvars hcl     | Terraform
m4           text/x-m4                               t m4 ac am =configure.ac | m4 macros
yacc         text/x-yacc                             t y yy ypp          | yacc grammar
lex          text/x-lex                              t l ll              | lex rules
vimscript    text/x-vim                              t vim =.vimrc       | Vim script
gdscript     text/x-gdscript                         t gd                | GDScript
solidity     text/x-solidity                         t sol               | Solidity source
wat          text/x-wat                              t wat wast          | WebAssembly text
jupyter      application/x-ipynb+json                t ipynb             | Jupyter notebook
qml          text/x-qml                              t qml               | QML
applescript  text/x-applescript                      t applescript       | AppleScript
cython       text/x-cython                           t cython            | Cython source
raku         text/x-raku                             t raku rakumod p6   | Raku source
prolog       text/x-prolog                           t prolog pro        | Prolog source
diff         text/x-diff                             t diff patch        | patch

[text]
plain        text/plain                              t txt text asc nfo me~ =readme =license =licence =copying =authors =changelog =changes =news =todo =install =copyright =notice | plain text
markdown     text/markdown                           t md markdown mdown mkd mdx | Markdown
rst          text/x-rst                              t rst rest          | reStructuredText
asciidoc     text/asciidoc                           t adoc asciidoc     | AsciiDoc
org          text/org                                t org               | Org notes
log          text/x-log                              t log               | log
subrip       application/x-subrip                    t srt               | subtitles
webvtt       text/vtt                                t vtt               | subtitles
ass          text/x-ssa                              t ass ssa           | subtitles
gettext      text/x-gettext-translation              t po pot            | translation
textile      text/x-textile                          t textile           | Textile
wiki         text/x-wiki                             t wiki mediawiki    | wiki text

[database]
sqlite       application/vnd.sqlite3                 ! sqlite sqlite3 db3 s3db db~ | SQLite database
access       application/vnd.ms-access               ! mdb accdb         | Access database
dbf          application/x-dbf                       a dbf               | dBase table
parquet      application/vnd.apache.parquet          ! parquet           | Parquet table
arrow        application/vnd.apache.arrow.file       ! arrow feather     | Arrow table
avro         application/x-avro                      ! avro              | Avro records
orc          application/x-orc                       ! orc               | ORC table
hdf5         application/x-hdf5                      ! h5 hdf5 hdf       | HDF5 data
netcdf       application/x-netcdf                    - nc                | netCDF data
numpy        application/x-numpy                     ! npy               | NumPy array
npz          application/x-npz                       <zip npz            | NumPy arrays
rdata        application/x-rdata                     - rdata rda rds     | R data
matdata      application/x-matlab-data               - mat               | MATLAB data
gdbm         application/x-gdbm                      - gdbm              | GDBM database
bdb          application/x-berkeley-db               - bdb db            | Berkeley database
locate       application/x-locate                    - locatedb          | locate database
pcap         application/vnd.tcpdump.pcap            ! pcap cap          | packet capture
pcapng       application/x-pcapng                    ! pcapng            | packet capture

[book]
epub         application/epub+zip                    <zip epub           | EPUB book
mobi         application/x-mobipocket-ebook          - mobi prc azw azw3 | Kindle book
fb2          application/x-fictionbook+xml           t<xml fb2           | FictionBook
cbz          application/vnd.comicbook+zip           <zip cbz            | comic book
cbr          application/vnd.comicbook-rar           <rar cbr            | comic book
cb7          application/x-cb7                       <7z cb7             | comic book
cbt          application/x-cbt                       <tar cbt            | comic book
lit          application/x-ms-reader                 - lit               | Microsoft Reader book

[font]
ttf          font/ttf                                ! ttf               | TrueType font
otf          font/otf                                ! otf               | OpenType font
ttc          font/collection                         ! ttc otc           | font collection
woff         font/woff                               ! woff              | web font
woff2        font/woff2                              ! woff2             | web font
eot          application/vnd.ms-fontobject           - eot               | embedded font
type1        application/x-font-type1                a pfb pfa           | Type 1 font
afm          application/x-font-afm                  t afm               | font metrics
pcf          application/x-font-pcf                  ! pcf               | X bitmap font
bdf          application/x-font-bdf                  t bdf               | X bitmap font
psf          application/x-font-linux-psf            ! psf psfu          | console font
tfm          application/x-tex-tfm                   - tfm               | TeX font metrics

[mesh]
stl          model/stl                               a stl               | STL mesh
objmesh      model/obj                               t obj               | Wavefront mesh
mtl          model/mtl                               t mtl               | Wavefront materials
ply          model/ply                               ! ply               | PLY mesh
gltf         model/gltf+json                         t gltf              | glTF scene
glb          model/gltf-binary                       ! glb               | glTF scene
fbx          application/x-fbx                       a fbx               | FBX scene
blend        application/x-blender                   - blend             | Blender scene
3ds          application/x-3ds                       - 3ds               | 3D Studio scene
3mf          model/3mf                               <zip 3mf            | 3MF model
dae          model/vnd.collada+xml                   t<xml dae           | COLLADA scene
step         model/step                              t step stp          | STEP model
iges         model/iges                              t iges igs          | IGES model
usdz         model/vnd.usdz+zip                      <zip usdz           | USD scene
usd          model/vnd.usd                           a usd usda usdc     | USD scene
dwg          image/vnd.dwg                           ! dwg               | AutoCAD drawing
dxf          image/vnd.dxf                           a dxf               | AutoCAD drawing
gcode        text/x-gcode                            t gcode             | machine code of a printer
vrml         model/vrml                              t wrl vrml          | VRML scene
openscad     application/x-openscad                  t scad              | OpenSCAD model

[config]
json         application/json                        t json json5 jsonc geojson webmanifest map | JSON
jsonlines    application/x-ndjson                    t jsonl ndjson      | JSON lines
yaml         application/yaml                        t yaml yml          | YAML
toml         application/toml                        t toml              | TOML
xml          text/xml                                t xml xsd xsl xslt dtd ent rng sgml glade ui xmi fodt fods fodp | XML
ini          text/x-ini                              t ini cfg conf cnf inf properties reg editorconfig =.editorconfig =.gitconfig | settings
env          text/x-env                              t env =.env         | environment
plist        application/x-plist                     a plist             | property list
gitignore    text/x-gitignore                        t gitignore =.gitignore =.gitattributes =.gitmodules =.dockerignore | git settings
lockfile     text/x-lockfile                         t lock              | locked versions
service      text/x-systemd-unit                     t service socket timer mount automount target slice path~ | systemd unit
rules        text/x-udev-rules                       t rules hwdb        | rules
gconf        text/x-gsettings                        t gschema schema~   | settings schema
pkgconfig    text/x-pkg-config                       t pc                | pkg-config facts
kbdmap       text/x-keymap                           t keymap            | key map
mo           application/x-gettext-translation       ! mo gmo            | compiled translation
terminfo     application/x-terminfo                  ! terminfo          | compiled terminal description
timezone     application/tzif                        ! tzif              | time zone

[encrypted]
pgp          application/pgp-encrypted               a gpg pgp           | PGP message
age          application/x-age-encryption            ! age               | age message
luks         application/x-luks                      ! luks              | encrypted volume
veracrypt    application/x-veracrypt                 - hc tc             | encrypted volume
kdbx         application/x-keepass2                  ! kdbx kdb          | password safe
p7m          application/pkcs7-mime                  a p7m               | encrypted mail
axcrypt      application/x-axcrypt                   - axx               | encrypted file

[key]
pem          application/x-pem-file                  t pem               | PEM key or certificate
cert         application/pkix-cert                   a crt cer der       | certificate
p12          application/x-pkcs12                    - p12 pfx           | key store
sshkey       application/x-ssh-key                   t pub =id_rsa =id_ed25519 =id_ecdsa =authorized_keys =known_hosts | SSH key
pgpkey       application/pgp-keys                    a asc~              | PGP key
pgpsig       application/pgp-signature               a sig               | PGP signature
privatekey   application/x-private-key               t key~              | private key
jks          application/x-java-keystore             ! jks keystore      | Java key store
csr          application/pkcs10                      t csr               | certificate request

[executable]
elf          application/x-executable                ! elf axf           | ELF program
sharedlib    application/x-sharedlib                 <elf so             | shared library
object       application/x-object                    <elf o              | object file
core         application/x-coredump                  <elf core           | core dump
kmod         application/x-kernel-module             <object ko          | kernel module
pe           application/vnd.microsoft.portable-executable ! exe dll sys scr ocx cpl efi drv mui | Windows program
dos          application/x-dosexec                   <pe com             | DOS program
macho        application/x-mach-binary               ! dylib bundle      | Mach-O program
wasm         application/wasm                        ! wasm              | WebAssembly
javaclass    application/java-vm                     ! class             | Java class
pyc          application/x-bytecode.python           - pyc pyo           | Python bytecode
luac         application/x-lua-bytecode              ! luac              | Lua bytecode
dex          application/x-dex                       ! dex               | Android bytecode
elc          application/x-elc                       ! elc               | Emacs bytecode
llvmbc       application/x-llvm                      ! bc                | LLVM bitcode
beam         application/x-erlang-beam               ! beam              | Erlang bytecode
libtool      text/x-libtool                          t la                | libtool library
msdospif     application/x-ms-pif                    - pif               | DOS shortcut

[binary]
gir          application/x-typelib                   ! typelib           | GObject introspection
cache        application/x-cache                     - cache             | cache
bpf          application/x-bpf                       - bpf               | BPF program
dtb          application/x-dtb                       ! dtb               | device tree
firmware     application/x-firmware                  - fw rom            | firmware
magicdb      application/x-magic                     ! mgc               | compiled magic
icc          application/vnd.iccprofile              a icc icm           | colour profile
hprof        application/x-hprof                     ! hprof             | heap dump
torrent      application/x-bittorrent                - torrent           | BitTorrent facts
pickle       application/x-pickle                    - pkl pickle        | Python pickle
protobuf     application/protobuf                    - pb                | Protocol Buffers data
gresource    application/x-gresource                 ! gresource         | GLib resources
journal      application/x-systemd-journal           ! journal           | systemd journal
gitpack      application/x-git-pack                  ! pack              | git pack
gitindex     application/x-git-index                 ! idx~              | git index
swapfile     application/x-vim-swap                  - swp swo           | Vim swap file
rdb          application/x-redis-rdb                 - rdb               | Redis snapshot
nes          application/x-nes-rom                   ! nes               | console game

[spreadsheet]
xlsx         application/vnd.openxmlformats-officedocument.spreadsheetml.sheet <zip xlsx xlsm xltx xlsb | Excel workbook
xls          application/vnd.ms-excel                <ole xls xlt xla    | Excel workbook
ods          application/vnd.oasis.opendocument.spreadsheet <zip ods ots | OpenDocument spreadsheet
csv          text/csv                                t csv               | comma separated table
tsv          text/tab-separated-values               t tsv tab           | tab separated table
numbers      application/vnd.apple.numbers           <zip numbers        | Numbers spreadsheet
gnumeric     application/x-gnumeric                  <gzip gnumeric      | Gnumeric spreadsheet
lotus        application/vnd.lotus-1-2-3             - wk1 wks 123       | Lotus spreadsheet

[presentation]
pptx         application/vnd.openxmlformats-officedocument.presentationml.presentation <zip pptx pptm ppsx potx | PowerPoint presentation
ppt          application/vnd.ms-powerpoint           <ole ppt pps pot~   | PowerPoint presentation
odp          application/vnd.oasis.opendocument.presentation <zip odp otp | OpenDocument presentation
keynote      application/vnd.apple.keynote           <zip key keynote    | Keynote presentation

[email]
eml          message/rfc822                          t eml mht mhtml     | mail
mbox         application/mbox                        t mbox              | mailbox
msg          application/vnd.ms-outlook              <ole msg oft        | Outlook mail
pst          application/vnd.ms-outlook-pst          ! pst ost           | Outlook mailbox
emlx         application/x-emlx                      t emlx              | Apple mail

[calendar]
ical         text/calendar                           t ics ical ifb vcs  | calendar

[contact]
vcard        text/vcard                              t vcf vcard         | contact
ldif         text/x-ldif                             t ldif ldi          | directory entries

[web]
html         text/html                               t html htm shtml xht xhtml hta | web page
css          text/css                                t css               | style sheet
scss         text/x-scss                             t scss sass         | style sheet
less         text/x-less                             t less              | style sheet
jsp          text/x-jsp                              t jsp jspx          | server page
asp          text/x-asp                              t asp aspx cshtml   | server page
erb          text/x-erb                              t erb haml          | server page
template     text/x-template                         t j2 jinja jinja2 tmpl mustache hbs ejs pug twig | template
rss          application/rss+xml                     t<xml rss           | feed
atom         application/atom+xml                    t<xml atom          | feed
har          application/x-har+json                  t har               | record of requests
webarchive   application/x-webarchive                - webarchive        | web page

[shortcut]
desktop      application/x-desktop                   t desktop directory~ | desktop entry
url          application/x-mswinurl                  t url               | link
lnk          application/x-ms-shortcut               ! lnk               | Windows shortcut
webloc       application/x-webloc                    a webloc            | link

[package]
deb          application/vnd.debian.binary-package   <ar deb udeb        | Debian package
rpm          application/x-rpm                       ! rpm               | RPM package
apk          application/vnd.android.package-archive <zip apk aab xapk   | Android app
ipa          application/x-ios-app                   <zip ipa            | iOS app
jar          application/java-archive                <zip jar war ear    | Java archive
whl          application/x-wheel+zip                 <zip whl egg        | Python package
gem          application/x-rubygem                   <tar gem            | Ruby package
crate        application/x-rust-crate                <gzip crate         | Rust package
msi          application/x-msi                       <ole msi msp        | Windows installer
msix         application/msix                        <zip msix appx      | Windows app
pkg          application/x-xar-package               <xar pkg mpkg       | Mac installer
snap         application/vnd.snap                    <squashfs snap      | snap package
flatpak      application/vnd.flatpak                 - flatpak flatpakref | Flatpak package
appimage     application/vnd.appimage                <elf appimage       | AppImage
crx          application/x-chrome-extension          ! crx               | browser extension
xpi          application/x-xpinstall                 <zip xpi            | browser extension
vsix         application/x-vsix                      <zip vsix           | editor extension
nupkg        application/x-nuget                     <zip nupkg          | .NET package
conda        application/x-conda                     <zip conda          | conda package
alpinepkg    application/x-alpine-package            - apkg              | Anki or Alpine package
tarpkg       application/x-pacman-package            <zstd pkg.tar.zst   | Arch package

[model_entry]
onnx         application/x-onnx                      - onnx              | neural network
safetensors  application/x-safetensors               - safetensors       | neural network
gguf         application/x-gguf                      ! gguf              | neural network
pytorch      application/x-pytorch                   - pt pth ckpt       | neural network
tflite       application/x-tflite                    ! tflite            | neural network
keras        application/x-keras                     <zip keras          | neural network
mlmodel      application/x-mlmodel                   - mlmodel           | neural network

[memory]
memory       application/x-sd-memory                 ! memory            | memory archive
"""
